"""Randomness as a pure function of (seed, purpose, epoch)."""

import platform
from pathlib import Path

import pytest
import torch

from conftest import make_spec, small
from faults.determinism import NARROW_PROCESSOR
from faults.one_process import run_all
from ockham.execute import execute
from ockham.record.checkpoint import Checkpoint
from ockham.record.folder import RunFolder
from ockham.rng import Noise, Streams, derive, generator, global_seed


def test_seeds_are_the_same_on_every_machine() -> None:
    # Written down once; a change would make every published run another run.
    assert derive(0, "order", 0) == 3471081512423777433
    assert derive(7, "split", 3) == 4000728518013890651


def test_each_argument_changes_the_stream() -> None:
    seeds = {derive(seed, purpose, epoch) for seed in (0, 1, 12) for purpose in ("order", "split") for epoch in (0, 1, 2)}
    assert len(seeds) == 3 * 2 * 3


def test_noise_begins_anew_with_each_epoch() -> None:
    noise, x = Noise(0, "dropout"), torch.empty(5)
    noise.begin(3)
    first, second = noise.uniform_like(x), noise.uniform_like(x)
    noise.begin(4)
    other = noise.uniform_like(x)
    noise.begin(3)
    assert torch.equal(noise.uniform_like(x), first)
    assert torch.equal(noise.uniform_like(x), second)
    assert not torch.equal(other, first)
    assert torch.equal(first, torch.rand(5, generator=generator(0, "dropout", 3)))


def test_a_stream_does_not_depend_on_the_others() -> None:
    alone, together, x = Streams(0), Streams(0), torch.empty(5)
    together.stream("other").uniform_like(x)
    for streams in (alone, together):
        streams.stream("own")
        streams.begin(1)
    together.stream("other").uniform_like(x)
    assert torch.equal(alone.stream("own").uniform_like(x), together.stream("own").uniform_like(x))


def test_a_stream_that_is_asked_for_late_is_in_the_current_epoch() -> None:
    """As in a run that continues: what draws in its first batch has drawn since epoch 0 in the uninterrupted one."""
    early, late, x = Streams(0), Streams(0), torch.empty(5)
    early.stream("noise")
    for streams in (early, late):
        streams.begin(3)
    assert torch.equal(early.stream("noise").uniform_like(x), late.stream("noise").uniform_like(x))


def test_streams_go_back_to_where_they_stood() -> None:
    x, streams = torch.empty(3), Streams(0)
    streams.begin(2)
    streams.stream("old").normal_like(x)
    positions = streams.positions()
    drawn = [streams.stream(purpose).normal_like(x) for purpose in ("old", "new", "old")]
    streams.move_to(2, positions)
    again = [streams.stream(purpose).normal_like(x) for purpose in ("old", "new", "old")]
    assert all(torch.equal(one, other) for one, other in zip(drawn, again, strict=True))
    assert not torch.equal(drawn[0], drawn[2])


def test_ranks_draw_the_same_from_a_shared_stream() -> None:
    draws = [Streams(0, rank=rank).stream("a", shared=True).uniform_like(torch.empty(5)) for rank in (0, 1)]
    assert torch.equal(*draws)
    assert torch.equal(draws[0], Streams(0).stream("a").uniform_like(torch.empty(5)))


def test_ranks_draw_differently() -> None:
    x = torch.empty(5)
    assert not torch.equal(Streams(0).stream("a").uniform_like(x), Streams(0, rank=1).stream("a").uniform_like(x))


def test_global_seed_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    with global_seed(0, "initialization"):
        inside = torch.rand(3)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(inside, torch.rand(3, generator=generator(0, "initialization")))


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the libraries know no other registers here")
def test_another_processor_draws_the_same_and_trains_to_rounding(tmp_path: Path) -> None:
    """One whose wide registers torch, oneDNN and MKL are kept from: orders, noise and mixtures are the same."""
    reg = "reg=[dropout,gaussian_dropout,gradient_noise,input_noise,l2]"
    settings = [*small("data=digits", "optimizer=momentum", reg, "augment=mixup"), f"hydra.run.dir={tmp_path / 'other'}"]
    left = run_all({"run": settings}, tmp_path / "commands", NARROW_PROCESSOR)["run"]
    assert left.code == 0, left.errors
    here = make_spec(tmp_path / "here", *settings[:-1])
    execute(here)
    other = RunFolder(tmp_path / "other")
    for one, another in zip(here.folder.epochs(), other.epochs(), strict=True):
        assert one == pytest.approx(another, rel=1e-5)
    weights, others = (Checkpoint.load(folder.last_checkpoint).model for folder in (here.folder, other))
    for name, weight in weights.items():
        assert torch.allclose(weight, others[name], rtol=1e-5, atol=1e-6), name
    if torch.backends.cpu.get_cpu_capability() != "DEFAULT":
        assert not all(torch.equal(weight, others[name]) for name, weight in weights.items()), "the registers were used"
