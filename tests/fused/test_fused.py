"""Fused groups: every member is the run that it would have been alone."""

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

import ockham.reg
from cases import CASES
from comparison import assert_same_run, scalars
from conftest import ROOT, compose, make_spec
from ockham import build, schema
from ockham.core.metrics import evaluate
from ockham.execute import RunSpec, execute, execute_group
from ockham.fused import compiled, native, programs, updates
from ockham.fused import group as group_module
from ockham.fused.partition import (
    COMMON,
    GROUP_BYTES,
    PROCESS_BYTES,
    REPEATS,
    WITH_HOOK,
    cap,
    member_bytes,
    partition_jobs,
    repeats_of,
)
from ockham.optim.rules import RULES, rule_of
from ockham.record.checkpoint import Checkpoint
from ockham.record.folder import RunFolder
from ockham.reg.base import has_hook
from sweeps import sweep

BASE = ("data.train_samples=200", "data.batch_size=32", "model.hidden=[16]", "trainer.max_epochs=3", "logger=csv")


def has_rule(option: str) -> bool:
    content = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "optimizer" / f"{option}.yaml"))
    if "data" in content:  # gd, rprop and lbfgs need the whole training split
        return False
    settings = content.get("optimizer", content)
    settings.pop("ranges", None)
    try:
        rule_of(settings.pop("_target_"), settings)
    except ValueError:
        return False
    return True


def from_outside(target: str, key: str, **settings: object) -> list[str]:
    """The overrides for a regularizer that no yaml of Ockham names."""
    chosen = [f"+reg.{key}.{name}={value}" for name, value in settings.items()]
    return [f"+reg.{key}._target_={target}", *chosen, f"trust=[{target.partition('.')[0]}]"]


OPTIMIZERS = [option for option in CASES["optimizer"] if has_rule(option)]
REGULARIZERS: dict[str, Sequence[str]] = {
    # Those that need another model or other batches than the members next to them are in a test of their own.
    **{
        option: row
        for option, row in CASES["reg"].items()
        if option != "r_drop" and not any(override.startswith("model") for override in row)
    },
    "l1": ["reg.l1.strength=1e-2"],
    "l1 subgradient": ["reg=l1", "reg.l1.strength=1e-2", "reg.l1.method=subgradient", "reg.l1.include_bias=true"],
    "l2": ["reg.l2.strength=1e-2"],
    "l2 half_mean": ["reg=l2", "reg.l2.strength=0.3", "reg.l2.scale=half_mean", "reg.l2.include_bias=true"],
    "elastic_net": ["reg.elastic_net.strength=1e-2"],
    "elastic_net subgradient": ["reg=elastic_net", "reg.elastic_net.method=subgradient"],
    "weight_decay": ["reg.weight_decay.strength=0.1"],
    "group_lasso": ["reg.group_lasso.strength=1e-2"],
    "max_norm": ["reg.max_norm.limit=0.5"],
    "manifold_mixup": ["reg.manifold_mixup.alpha=0.5"],
    # Three trainings of one epoch.
    "magnitude_pruning": ["reg.magnitude_pruning.rounds=2", "reg.magnitude_pruning.rewind_step=3"],
    "[dropconnect,l1,spectral_norm]": [],
    "[dropout,label_smoothing,manifold_mixup]": [],
    "[dropout,l2,label_smoothing]": [],
    "[asam,dropout,gradient_noise,l2,spectral_norm]": ["reg.asam.rho=0.3"],
    "[gradient_centralization,lookahead,max_norm]": [],
    "[dropout,input_noise,jacobian,spectral_norm]": ["reg.jacobian.projections=2"],
    "from outside": from_outside("outside.LogPenalty", "log_penalty", strength=0.01),
    "a noise from outside": from_outside("outside.Multiplied", "multiplied", spread=0.3),
    "two of one class": [
        "reg=[dropout,l2]",
        "reg.l2.strength=1e-2",
        *(f"+reg.{key}._target_=ockham.reg.{cls}" for key, cls in (("a", "Dropout"), ("z", "L2"))),
        "+reg.a.rate=0.2",
        "+reg.z.strength=3e-2",
        "+reg.z.include_bias=true",
    ],
}


def reg(name: str, rows: Mapping[str, Sequence[str]] = REGULARIZERS) -> list[str]:
    return [*([] if " " in name else [f"reg={name}"]), *rows[name]]


def has_average(optimizer: str) -> bool:
    """Whether it judges the run by an average of its own, so that no regularizer may."""
    return optimizer == "asgd" or optimizer.startswith("schedule_free")


def make_specs(folder: Path, members: Sequence[Sequence[str]]) -> list[RunSpec]:
    bases = [[o for o in BASE if not ("model=linear" in member and "hidden" in o)] for member in members]
    return [make_spec(folder / str(n), *base, *member) for n, (base, member) in enumerate(zip(bases, members, strict=True))]


def run_group(specs: Sequence[RunSpec], folder: Path) -> list[RunSpec]:
    """The runs of the specs as one group, in folders of their own."""
    members = [replace(spec, folder=RunFolder(folder / str(n))) for n, spec in enumerate(specs)]
    for spec, member in zip(specs, members, strict=True):
        shutil.copytree(spec.folder.path / ".hydra", member.folder.path / ".hydra")
    execute_group(members, folder / "group")
    return members


def run_both(folder: Path, members: Sequence[Sequence[str]]) -> tuple[list[RunSpec], list[RunSpec]]:
    """The members alone, and as one group."""
    alone = make_specs(folder / "alone", members)
    for spec in alone:
        execute(spec)
    return alone, run_group(alone, folder / "fused")


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """Between two tensors, relative to the first."""
    one, other = one.double(), other.double()
    return float((one - other).norm() / one.norm().clamp(min=1e-12))


def assert_close(alone: RunFolder, fused: RunFolder, *, rtol: float = 1e-9) -> None:
    """The same record and the same checkpoints up to rounding."""
    assert len(alone.epochs()) == len(fused.epochs())
    for one, other in zip(alone.epochs(), fused.epochs(), strict=True):
        assert one == pytest.approx(other, rel=rtol, abs=rtol)
    assert alone.metrics() == pytest.approx(fused.metrics(), rel=rtol, abs=rtol)
    for name in ("last_checkpoint", "best_checkpoint"):
        single, member = (getattr(run, name) for run in (alone, fused))
        assert member.stat().st_size <= 1.05 * single.stat().st_size + 4096, "a member's checkpoint holds nothing of the others"
        one, other = Checkpoint.load(single), Checkpoint.load(member)
        assert (one.epoch, one.step, one.samples, one.input) == (other.epoch, other.step, other.samples, other.input)
        assert (one.best is None) == (other.best is None)
        assert list(one.model) == list(other.model)
        for key in one.model:
            assert distance(one.model[key], other.model[key]) <= rtol, key
        if one.optimizer is None or other.optimizer is None:
            assert one.optimizer is other.optimizer is None
            continue
        for expected, group in zip(one.optimizer["param_groups"], other.optimizer["param_groups"], strict=True):
            assert group == {**expected, "lr": pytest.approx(expected["lr"])}
        for index, state in one.optimizer["state"].items():
            for key, value in state.items():
                if value is not None:
                    assert distance(value, other.optimizer["state"][index][key]) <= rtol, key


def use(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make groups update in that form; the rules without the time to compile them, which is another test."""
    monkeypatch.setattr(updates, "SECONDS_TO_COMPILE", 1e9 if form == "native" else 0.0)
    monkeypatch.setattr(updates, "SECONDS_TO_COMPILE_GRADIENTS", 0.0)
    if form == "rules":
        monkeypatch.setattr(compiled, "compiled", lambda sources: [source.function for source in sources])


#: Every regularizer at least once, in as few members as keep an update, a penalty or an average apart from the others.
TOGETHER: dict[str, Sequence[str]] = {
    "none": [],
    "l1": ["reg.l1.strength=1e-2"],
    "weight_decay": ["reg.weight_decay.strength=0.1"],
    "magnitude_pruning": ["reg.magnitude_pruning.rounds=2", "reg.magnitude_pruning.rewind_step=3"],
    "[asam,dropout,gradient_noise,l2,spectral_norm]": ["reg.asam.rho=0.3"],
    "[gradient_centralization,lookahead,max_norm]": ["reg.max_norm.limit=0.5"],
    "[dropout,input_noise,jacobian]": [],
    "[dropconnect,elastic_net,spectral_decoupling]": ["reg.elastic_net.strength=1e-2"],
    "[dropout,label_smoothing,manifold_mixup]": [],
    "[confidence_penalty,ema,gaussian_dropout,orthogonal,sam]": ["reg.ema.decay=0.8"],
    "[early_stopping,group_lasso,swa]": ["reg.group_lasso.strength=1e-2", "reg.swa.start=0.5"],
}

#: One rule for the gradient as it is, one with moments and one over whole matrices meet every regularizer by itself.
WITH_EVERY_REGULARIZER = ("sgd", "adam", "muon")


def test_every_regularizer_is_among_those_that_every_optimizer_meets() -> None:
    names = {name for member in TOGETHER for name in member.strip("[]").split(",")}
    assert names == {name for name in REGULARIZERS if name in CASES["reg"]}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_members_equal_single_runs_for_every_regularizer(
    optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = CASES["optimizer"][optimizer]
    regularizers = REGULARIZERS if optimizer in WITH_EVERY_REGULARIZER else TOGETHER
    names = [
        name
        for name in regularizers
        if not (has_average(optimizer) and any(average in name for average in ("ema", "swa", "lookahead")))
    ]
    # Small inputs: the products of a whole Jacobian for forty members would take most of a minute with MNIST's.
    members = [
        ["data=digits", f"optimizer={optimizer}", *row, *reg(name, regularizers), "trainer.precision=64-true"] for name in names
    ]
    use("native", monkeypatch)
    alone, fused = run_both(tmp_path, members)
    use("rules", monkeypatch)
    ruled = run_group(alone, tmp_path / "rules")
    for one, member, rule in zip(alone, fused, ruled, strict=True):
        assert_close(one.folder, member.folder)
        assert_close(one.folder, rule.folder)


def test_members_equal_single_runs_for_the_whole_jacobian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten products of every member, whose regularizers differ: that takes too long beside forty others."""
    whole = ["data=digits", "reg.jacobian.projections=all", "trainer.precision=64-true"]
    members = [
        [*whole, "optimizer=adam", "reg=jacobian"],
        [*whole, "optimizer=sgd", "reg=[dropout,jacobian]"],
        ["data=digits", "trainer.precision=64-true", "reg=none"],
    ]
    use("native", monkeypatch)
    alone, fused = run_both(tmp_path, members)
    use("rules", monkeypatch)
    for one, member, rule in zip(alone, fused, run_group(alone, tmp_path / "rules"), strict=True):
        assert_close(one.folder, member.folder)
        assert_close(one.folder, rule.folder)


#: Reduces after every epoch but the first.
PLATEAU = ["schedule=plateau", "schedule.patience=0", "schedule.min_delta=10"]

MIXED = [
    ["optimizer=momentum", "reg=l2", "seed=1", "schedule=one_cycle"],
    ["optimizer=adam", "reg=[dropout,l1]", "seed=0"],
    ["optimizer=rmsprop", "reg=none", "seed=1", "schedule=step", "schedule.warmup_steps=2"],
    ["optimizer=adam", "reg=none", "seed=2", "optimizer.lr=0.01"],
    ["optimizer=sgd", "reg=[gaussian_dropout,input_noise]", "seed=1", "schedule=constant"],
    ["optimizer=momentum", "reg=label_smoothing", "seed=0"],
    ["optimizer=muon", "reg=l2", "seed=1"],
    ["optimizer=schedule_free_sgd", "optimizer.lr=0.1", "reg=l2", "seed=2"],
    ["optimizer=sgd", "reg=none", "seed=1", *PLATEAU],
    ["optimizer=adam", "reg=none", "seed=0", *PLATEAU, "schedule.warmup_steps=2"],
    ["optimizer=momentum", "reg=[dropconnect,spectral_norm]", "seed=1"],
    ["optimizer=adam", "reg=l1", "reg.l1.strength=30", "seed=2"],  # weights of 0, which a neighbour's norm would divide by
    ["optimizer=momentum", "reg=[dropout,gradient_noise,sam]", "seed=1"],
    ["optimizer=momentum", "reg=[asam,gradient_noise]", "seed=2"],
    ["optimizer=adam", "reg=[dropout,ema]", "seed=1"],
]
#: What is judged by an average, which in a group has no statistics of batch norm.
AVERAGED = [member for member in MIXED if any("schedule_free" in word or "ema" in word for word in member)]


#: 200 images make two steps of 3 x 30 samples, and one of 20.
ACCUMULATED = ["data.batch_size=30", "trainer.accumulate_grad_batches=3"]
CLIPPED = ["trainer.gradient_clip_val=0.3"]


@pytest.mark.parametrize(
    "common",
    [
        [],
        ["model.batch_norm=true", "model.hidden=[16,8]"],
        ["model.layer_norm=true", "model.hidden=[16,8]", "model.init=orthogonal", "model.init_scale=2"],
        ["model.parametrization=mup", "model.hidden=[16,8]", "model.base_width=4"],
        ["model=linear"],
        ["model.activation=sigmoid", "reg=kl_sparsity"],
        ["augment=mixup"],
        ["loss=mse"],
        ["augment=shift", "data.batch_size=full"],
        ["augment=trivial_augment"],
        ["reg=[dropout,input_noise,r_drop,spectral_norm]", "model.hidden=[16,8]"],
        [*ACCUMULATED, "model.layer_norm=true", "reg=[dropout,l2,r_drop]", "augment=cutmix"],
        [*ACCUMULATED, "model.hidden=[16,8]", "reg=[dropout,input_noise,manifold_mixup]"],
        ["trainer.max_steps=10"],
        ["cv=4", "fold=1"],
        CLIPPED,
        ["trainer.gradient_clip_val=0.01", "trainer.gradient_clip_algorithm=value"],
        [*ACCUMULATED, *CLIPPED, "model.batch_norm=true", "reg=[confidence_penalty,dropout,input_noise,l2]"],
        [*ACCUMULATED, "model.activation=sigmoid", "reg=kl_sparsity", "augment=mixup", "trainer.max_steps=7"],
        [*ACCUMULATED, "model.layer_norm=true", "reg=[dropout,jacobian]", "augment=mixup"],
    ],
    ids=lambda common: " ".join(common) or "plain",
)
def test_a_mixed_group_equals_single_runs(common: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Optimizers, schedules, regularizers and seeds of every kind in one group, in double precision, in both forms.

    Batch norm makes the gradient by the weights of a pixel that never varies zero but for rounding, which Adam and RMSprop
    divide by next to nothing. The form of rules rounds in other places, so that it is held to this with noise on the inputs.
    """
    base = [*common, "trainer.precision=64-true"]
    # Muon needs hidden weights.
    mixed = [member for member in MIXED if not ("optimizer=muon" in member and "model=linear" in common)]
    if "model.batch_norm=true" in common:
        mixed = [member for member in mixed if member not in AVERAGED]
    common_reg = [override for override in common if override.startswith("reg=")]
    members = [[*(o for o in member if not (o.startswith(("reg=", "reg.")) and common_reg)), *base] for member in mixed]
    use("native", monkeypatch)
    alone, native = run_both(tmp_path, members)
    use("rules", monkeypatch)
    amplified = "model.batch_norm=true" in common and "input_noise" not in str(common_reg)
    ruled = native if amplified else run_group(alone, tmp_path / "rules")
    if not common:
        rates = [row["lr"] for row in alone[mixed.index(["optimizer=sgd", "reg=none", "seed=1", *PLATEAU])].folder.epochs()]
        assert rates[-1] < rates[0], "the schedule has seen its results"
    for one, other, another in zip(alone, native, ruled, strict=True):
        assert_close(one.folder, other.folder)
        assert_close(one.folder, another.folder)


def test_signals_with_wrong_labels_train_as_a_group(tmp_path: Path) -> None:
    """Every seed has wrong labels of its own, also where it validates, and float32 images."""
    base = ["data=mnist1d", "data.label_noise=0.3", "data.label_noise_val=true", "trainer.precision=64-true"]
    alone, fused = run_both(tmp_path, [[*base, f"seed={seed}", f"optimizer={o}"] for seed in (0, 1) for o in ("sgd", "adam")])
    for one, other in zip(alone, fused, strict=True):
        assert_close(one.folder, other.folder)


def test_folds_of_unequal_size_make_a_group(tmp_path: Path) -> None:
    """4,000 images in three folds: two trainings of 2,667 images and one of 2,666."""
    base = ["trainer.precision=64-true", "data.train_samples=null", "trainer.max_epochs=1", "cv=3"]
    alone, fused = run_both(tmp_path, [[*base, f"fold={fold}", "reg=dropout"] for fold in range(3)])
    for one, other in zip(alone, fused, strict=True):
        assert_close(one.folder, other.folder)


def test_folds_write_a_checkpoint_of_their_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_module, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    specs = [make_spec(tmp_path / str(fold), *BASE, "trainer.max_epochs=2", "cv=4", f"fold={fold}") for fold in range(2)]
    execute_group(specs, tmp_path / "group")
    assert [spec.folder.state for spec in specs] == ["finished"] * 2


def test_in_single_precision_accuracies_agree(tmp_path: Path) -> None:
    base = ("data.train_samples=1000", "model.hidden=[64]")
    members = [
        [f"optimizer={o}", f"reg={r}", *base] for o in ("momentum", "adam", "rmsprop") for r in ("none", "l1", "dropout")
    ]
    alone, fused = run_both(tmp_path, members)
    gaps = [
        abs(one.folder.metrics()["val/acc"] - other.folder.metrics()["val/acc"])
        for one, other in zip(alone, fused, strict=True)
    ]
    assert max(gaps) <= 0.005
    assert sum(gaps) / len(gaps) <= 0.001


@pytest.mark.skipif(not shutil.which("g++"), reason="there is no C++ compiler here")
def test_a_step_compiles_to_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Programs equal single runs, also where they clip and accumulate, and a killed group continues in the same ones."""
    use("compiled", monkeypatch)
    monkeypatch.setattr(programs, "_programs", {})
    common = ["trainer.precision=64-true", *ACCUMULATED, *CLIPPED]
    members = [
        [f"optimizer={optimizer}", f"reg={name}", *common]
        for optimizer in ("adam", "momentum")
        for name in ("l1", "l2", "dropout", "max_norm", "manifold_mixup", "jacobian")
    ]
    alone, fused = run_both(tmp_path, members)
    assert "could not be compiled" not in caplog.text
    assert len(programs._programs) == 3, "one of the gradients, and one for each rule"
    for one, other in zip(alone, fused, strict=True):
        assert_close(one.folder, other.folder)
    broken = [make_spec(tmp_path / "broken" / str(n), *BASE, *member) for n, member in enumerate(members)]
    assert kill_and_continue(broken, tmp_path / "broken-group", monkeypatch, kills=2) == 3
    assert len(programs._programs) == 3, "no other program was needed"
    for one, other in zip(fused, broken, strict=True):
        assert_same_run(one.folder, other.folder, events=False)


def test_train_scores_are_of_the_sample_that_is_asked_for(tmp_path: Path) -> None:
    """Every fourth of 200 training images; all else stays the same."""
    members = [[f"optimizer={optimizer}", "trainer.precision=64-true"] for optimizer in ("sgd", "adam")]
    whole = run_group(make_specs(tmp_path, members), tmp_path / "whole")
    alone, fused = run_both(tmp_path, [[*member, "trainer.probe_samples=50"] for member in members])
    for one, other, all_samples in zip(alone, fused, whole, strict=True):
        assert_close(one.folder, other.folder)
        last = Checkpoint.load(one.folder.last_checkpoint)
        run = build.run(one.config)
        run.model.double().load_state_dict(last.model)
        run.normalize.for_model(torch.float64, run.memory_format, torch.device("cpu"))
        train = run.splits.train
        expected = evaluate(run.model, train.images[::4], train.labels[::4], run.normalize)
        row, row_of_all = one.folder.epochs()[-1], all_samples.folder.epochs()[-1]
        assert (row["train/loss"], row["train/acc"]) == pytest.approx(expected, rel=1e-9)
        assert row["val/loss"] == pytest.approx(row_of_all["val/loss"], rel=1e-9)
        assert row["train/loss"] != pytest.approx(row_of_all["train/loss"], rel=1e-3)


@pytest.mark.skipif(not shutil.which("g++"), reason="there is no C++ compiler here")
def test_processes_share_compiling_and_wait_for_nothing_that_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes that compile the same programs at once both end, with the same programs."""
    code = """
import sys, torch
from ockham.fused import programs
begin = programs._program
programs._program = lambda traced: (print(tuple(traced.example[0].shape), flush=True), begin(traced))[1]
sources = [programs.Source(lambda x: x.sin() + x, n, (torch.zeros(n),)) for n in (8, 16)]
print([program(torch.zeros(n)).tolist() for program, n in zip(programs.compiled(sources), (8, 16))])
"""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT / "src")}
    environment.pop("TORCHINDUCTOR_CACHE_DIR", None)
    running = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    outputs = [process.communicate(timeout=300)[0].splitlines() for process in running]
    assert [sorted(output[:2]) for output in outputs] == [["(16,)", "(8,)"]] * 2
    assert [output[2] for output in outputs] == [str([[0.0] * 8, [0.0] * 16])] * 2
    assert list((tmp_path / "ockham" / "programs").rglob("*.so")), "programs are kept in the user's cache"


def test_what_cannot_be_compiled_runs_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A program may not look at the values of tensors."""

    def impossible(sources: Sequence[programs.Source]) -> list[programs.Program]:
        look = programs.Source(lambda x: bool(x.sum()), "look", (torch.zeros(1),))
        return programs.compiled([*sources, look])

    use("compiled", monkeypatch)
    monkeypatch.setattr(compiled, "compiled", impossible)
    members = [["optimizer=adam", f"reg={name}", "trainer.precision=64-true"] for name in ("l1", "none")]
    alone, fused = run_both(tmp_path, members)
    assert caplog.text.count("could not be compiled") == 1
    for one, other in zip(alone, fused, strict=True):
        assert_close(one.folder, other.folder)


def test_a_member_that_diverges_changes_not_a_bit_of_its_neighbours(tmp_path: Path) -> None:
    def group(name: str, lr: str) -> list[RunSpec]:
        rates = [["optimizer=sgd", f"optimizer.lr={rate}"] for rate in ("0.1", lr, "0.05", "0.02", "0.01")]
        specs = [make_spec(tmp_path / name / str(n), *BASE, *overrides) for n, overrides in enumerate(rates)]
        execute_group(specs, tmp_path / f"{name}-group")
        return specs

    calm, wild = group("calm", "0.1"), group("wild", "1e30")
    assert wild[1].folder.state == "diverged"
    assert "after epoch 1" in wild[1].folder.status()["error"]["message"]
    for position in (0, 2, 3, 4):
        for name in ("metrics.csv", "metrics.json"):
            assert (calm[position].folder.path / name).read_bytes() == (wild[position].folder.path / name).read_bytes()


class Killed(BaseException):
    pass


def kill_and_continue(specs: Sequence[RunSpec], checkpoints: Path, monkeypatch: pytest.MonkeyPatch, *, kills: int) -> int:
    """Kill the group at each of its first checkpoints, one after every epoch; returns how often it was begun."""
    save = group_module.Group._save

    def save_and_die(self: Any) -> None:
        save(self)
        raise Killed

    attempts = 0
    with monkeypatch.context() as eager:
        eager.setattr(group_module, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
        while checkpoints.exists() or not attempts:
            attempts += 1
            with eager.context() as dying:
                if attempts <= kills:
                    dying.setattr(group_module.Group, "_save", save_and_die)
                with contextlib.suppress(Killed):
                    execute_group(specs, checkpoints)
    return attempts


@pytest.mark.parametrize("form", ["native", "rules"])
def test_a_killed_group_continues_bit_for_bit(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after any epoch, also with members that had stopped, diverged, or left a group that shrank."""
    use(form, monkeypatch)
    monkeypatch.setattr(group_module, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    members = [
        ["optimizer=adam", "reg=dropout"],
        ["optimizer=sgd", "optimizer.lr=1e30"],
        ["optimizer=momentum", "reg=early_stopping", "reg.early_stopping.patience=1", "optimizer.lr=1e-9"],
        ["optimizer=sgd", "reg=early_stopping", "reg.early_stopping.patience=1", "optimizer.lr=1e-9"],
        ["optimizer=rmsprop", "reg=l1", "seed=1"],
        ["optimizer=muon", "schedule=cosine"],
        ["optimizer=nadam", *PLATEAU],
        ["optimizer=schedule_free_adamw", "schedule.warmup_steps=2"],
        ["optimizer=asgd", "optimizer.t0=3"],
        ["optimizer=adafactor"],
        ["optimizer=lars", "reg=l1", "seed=1"],
        ["optimizer=nadam", "reg=spectral_norm"],
        ["optimizer=adam", "reg=[dropconnect,dropout,spectral_norm]", "seed=2"],
        ["optimizer=adam", "reg=[dropout,ema,gradient_noise,sam]"],
        ["optimizer=momentum", "reg=[gradient_centralization,swa]", "reg.swa.start=0.3"],
        ["optimizer=momentum", "reg=[asam,lookahead,spectral_norm]", "seed=1"],
        ["optimizer=momentum", "reg=[jacobian,magnitude_pruning]", "reg.magnitude_pruning.rounds=2"],
        ["optimizer=adagrad", "reg=magnitude_pruning", "schedule=cosine", "reg.magnitude_pruning.rewind_step=2"],
        ["optimizer=sgd", "reg=[dropout,manifold_mixup]", "seed=1"],
    ]
    longer = ("trainer.max_epochs=6", "logger=tensorboard", *ACCUMULATED, *CLIPPED)
    whole, broken = (
        [make_spec(tmp_path / name / str(n), *BASE, *longer, *member) for n, member in enumerate(members)] for name in "ab"
    )
    execute_group(whole, tmp_path / "a-group")
    assert kill_and_continue(broken, tmp_path / "b-group", monkeypatch, kills=4) == 5
    for one, other in zip(whole, broken, strict=True):
        assert one.folder.state == other.folder.state
        for name in ("metrics.csv", "metrics.json"):
            files = [spec.folder.path / name for spec in (one, other)]
            assert files[0].exists() == files[1].exists()
            assert not files[0].exists() or files[0].read_bytes() == files[1].read_bytes()
        if one.folder.state == "finished":
            assert_same_run(one.folder, other.folder)


def test_a_member_is_continued_and_evaluated_as_a_single_run(tmp_path: Path) -> None:
    """Made longer, a member goes on as the run does that was alone from the beginning."""
    members = [[f"optimizer={optimizer}", "schedule=constant", "trainer.precision=64-true"] for optimizer in ("adam", "nadam")]
    alone, fused = run_both(tmp_path, members)
    for one, member in zip(alone, fused, strict=True):
        for spec in (one, member):
            spec.folder.end("failed", error="made longer")
            spec.config.trainer.max_epochs = 5
            execute(spec)
        assert len(member.folder.epochs()) == 5
        assert_close(one.folder, member.folder)
    command = [sys.executable, "scripts/evaluate.py", str(fused[0].folder.path)]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"test/acc {fused[0].folder.metrics()['test/acc']}" in printed


# -- the plan ------------------------------------------------------------------------------------------------------------


def contents(*overrides: Sequence[str]) -> list[dict[str, Any]]:
    return [schema.container(compose(*line)) for line in overrides]


def test_a_partition_takes_each_job_once_and_groups_what_agrees() -> None:
    chance = random.Random(0)
    kinds = contents(
        ["optimizer=adam"],
        ["optimizer=sgd", "reg=l2"],
        ["model.hidden=[64]"],
        ["data.batch_size=64"],
        ["optimizer=lbfgs"],
        ["model=cnn"],
        from_outside("outside.Surgery", "surgery"),
        ["schedule=plateau"],
        ["trainer.max_epochs=3"],
        ["trainer.max_epochs=null", "trainer.max_steps=30"],
    )
    for _ in range(50):
        jobs = [{**chance.choice(kinds), "seed": chance.randrange(3)} for _ in range(chance.randrange(1, 40))]
        partition = partition_jobs(jobs, slots=chance.randrange(1, 5))
        assert sorted([*partition.alone, *(job for group in partition.groups for job in group)]) == list(range(len(jobs)))
        for group in partition.groups:
            assert len(group) >= 2
            assert len({json.dumps([jobs[job][key] for key in COMMON]) for job in group}) == 1
            assert len(group) <= cap(jobs[group[0]])
        assert partition_jobs(jobs, slots=2) == partition_jobs(jobs, slots=2)


def test_two_passes_a_step_make_a_group_of_their_own() -> None:
    jobs = contents(["reg=l2"], ["reg=sam"], ["reg=none"], ["reg=[asam,dropout]"])
    assert sorted(partition_jobs(jobs, slots=1).groups) == [(0, 2), (1, 3)]


def test_an_average_and_a_second_pass_take_memory() -> None:
    """One number for each parameter, and two."""
    plain, average, perturbed = (member_bytes(job) for job in contents(["reg=none"], ["reg=ema"], ["reg=sam"]))
    assert perturbed - plain == 2 * (average - plain)
    parameters = build.run(compose()).num_parameters
    assert average - plain == 4 * parameters


def test_the_plan_knows_the_hooks_of_what_comes_with_ockham() -> None:
    """Which it does without importing torch."""
    for hook, targets in WITH_HOOK.items():
        assert set(targets) == {f"ockham.reg.{name}" for name in ockham.reg.__all__ if has_hook_of(name, hook)}


def has_hook_of(name: str, hook: str) -> bool:
    cls = getattr(ockham.reg, name)
    return isinstance(cls, type) and issubclass(cls, ockham.reg.Regularizer) and has_hook(cls, hook)


def test_a_partition_makes_as_few_groups_as_the_cap_allows() -> None:
    (job,) = contents(["model.hidden=[128]"])
    size = cap(job)
    for count in (2, size, size + 1, 3 * size, 3 * size + 1):
        jobs = [{**job, "seed": seed} for seed in range(count)]
        groups = partition_jobs(jobs, slots=1).groups
        assert len(groups) == -(-count // size)
        assert max(map(len, groups)) - min(map(len, groups)) <= 1
    assert [len(group) for group in partition_jobs([job] * 8, slots=2).groups] == [4, 4]


def test_shapes_share_the_slots_by_their_work_and_the_longest_groups_come_first() -> None:
    narrow, wide, *others = contents(*([f"model.hidden=[{width},{width}]"] for width in (16, 256, 64, 80, 96)))
    many = partition_jobs([job for job in (narrow, *others) for _ in range(8)], slots=2)
    assert many.groups == tuple(tuple(range(first, first + 8)) for first in (24, 16, 8, 0)), "each shape is a group"
    unequal = partition_jobs([narrow] * 8 + [wide] * 8, slots=2)
    assert unequal.groups == ((8, 9, 10, 11), (12, 13, 14, 15), tuple(range(8))), "one shape is nearly all of the work"


def test_the_memory_there_is_bounds_groups() -> None:
    """Full batches of 3,500 images with 256 units: 22 MiB of images, 22 MiB of activations, and the parameters."""
    (full,) = contents(["optimizer=gd", "model.hidden=[256]"])
    assert 44 <= member_bytes(full) / 2**20 <= 54
    assert cap(full) == GROUP_BYTES // member_bytes(full)
    assert cap(full, memory=PROCESS_BYTES + 4 * 2**20 + 5 * member_bytes(full)) == 5
    (wide,) = contents(["model.hidden=[256]", "data.batch_size=32"])
    assert member_bytes(wide) < member_bytes(full) / 5
    (accumulated,) = contents(["model.hidden=[256]", "data.batch_size=32", "trainer.accumulate_grad_batches=100"])
    assert member_bytes(accumulated) - member_bytes(wide) == 4 * 2 * 99 * 32 * 784
    jobs = [{**full, "seed": seed} for seed in range(8)]
    room = PROCESS_BYTES + 4 * 2**20 + 3 * member_bytes(full)
    assert [len(group) for group in partition_jobs(jobs, slots=2, memory=2 * room).groups] == [3, 3, 2]
    alone = partition_jobs(jobs, slots=1, memory=PROCESS_BYTES).alone
    assert len(alone) == 8
    assert "no room for two" in alone[0]


def test_copies_of_a_batch_form_groups_of_their_own() -> None:
    """Of Ockham's classes by their names, of others by the class; a member has room for all copies."""
    with_copies = contents(["reg=[dropout,r_drop]"], from_outside("outside.Thrice", "thrice"))
    assert [repeats_of(content) for content in with_copies] == [2, 3]
    assert {name: cls.repeats for name, cls in vars(ockham.reg).items() if getattr(cls, "repeats", 1) != 1} == {
        target.rpartition(".")[2]: repeats for target, repeats in REPEATS.items()
    }
    (plain,) = contents(["reg=dropout"])
    jobs = [{**job, "seed": seed} for seed in range(2) for job in (plain, *with_copies)]
    assert partition_jobs(jobs, slots=1).groups == ((0, 3), (1, 4), (2, 5))
    assert member_bytes(with_copies[0]) > member_bytes(plain)


@pytest.mark.parametrize("optimizer", ["gd", "rprop"])
def test_seeds_without_an_order_or_noise_share_their_batches(
    optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The splits of mnist5k are fixed, and a full batch has no order."""
    shapes = []
    prepare = native.Native.prepare

    def noted(self: native.Native, microbatches: Sequence[Any]) -> None:
        shapes.append(tuple(microbatches[0].x.shape))
        prepare(self, microbatches)

    monkeypatch.setattr(native.Native, "prepare", noted)
    base = [f"optimizer={optimizer}", "data.train_samples=null", "data.batch_size=full", "trainer.precision=64-true"]
    alone, fused = run_both(tmp_path, [[*base, f"seed={seed}", "reg=dropout"] for seed in range(2)])
    assert set(shapes) == {(1, 3500, 784)}
    for one, other in zip(alone, fused, strict=True):
        assert_close(one.folder, other.folder)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["optimizer=lbfgs"], "LBFGS has no rule"),
        (["+optimizer.amsgrad=true"], "Adam has no rule with amsgrad=True"),
        (["schedule._target_=torch.optim.lr_scheduler.StepLR"], "StepLR is not one of Ockham's"),
        (["model=cnn"], "CNN has no stacked form"),
        (["trainer.devices=2"], "several devices"),
        (from_outside("outside.Surgery", "surgery"), "reg=surgery changes the model"),
        (["trainer.precision=bf16-mixed"], "bf16-mixed"),
        (["reg=ema", "model.batch_norm=true"], "statistics of batch norm"),
        (["optimizer=schedule_free_sgd", "model.batch_norm=true"], "statistics of batch norm"),
    ],
)
def test_what_runs_alone_has_a_reason(overrides: list[str], reason: str) -> None:
    (job,) = contents(overrides)
    assert reason in partition_jobs([job, job], slots=1).alone[0]


# -- from the command line -----------------------------------------------------------------------------------------------


def test_fused_and_single_sweeps_leave_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked for byte for byte, and Hydra's callbacks see the same jobs."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))
    settings = (
        "optimizer=sgd,adam",
        "reg=[none],[dropout,l2]",
        "logger=tensorboard",
        "+hydra.callbacks.seen._target_=callbacks.Seen",
    )
    for mode in ("on", "off"):
        code, _, errors = sweep(tmp_path / mode, *settings, f"fuse={mode}")
        assert (code, errors) == (0, "")
    assert json.loads((tmp_path / "on" / "sweep.json").read_text())["groups"] == [[0, 1], [2, 3]]
    for number in range(4):
        folders = [RunFolder(tmp_path / mode / str(number)) for mode in ("on", "off")]
        names = [{file.name.split(".")[0] for file in folder.path.rglob("*")} for folder in folders]
        assert names[0] == names[1]
        assert folders[0].epochs()[0].keys() == folders[1].epochs()[0].keys()
        assert folders[0].status().keys() == folders[1].status().keys()
        assert folders[0].cost().keys() == folders[1].cost().keys()
        one, other = (scalars(folder) for folder in folders)
        assert {tag: [step for step, _ in values] for tag, values in one.items()} == {
            tag: [step for step, _ in values] for tag, values in other.items()
        }
        for name in ("config.yaml", "hydra.yaml", "overrides.yaml"):
            one, other = (
                (tmp_path / mode / str(number) / ".hydra" / name).read_text().replace(str(tmp_path / mode), "sweep")
                for mode in ("on", "off")
            )
            assert one == other, name
    jobs = [sorted((tmp_path / mode / "seen.txt").read_text().splitlines()) for mode in ("on", "off")]
    assert jobs[0] == jobs[1]
    assert jobs[0][0] == "end 0 COMPLETED float"
    assert len(jobs[0]) == 8


def test_fuse_on_refuses_with_the_reason(tmp_path: Path) -> None:
    code, _, errors = sweep(tmp_path / "sweep", "optimizer=sgd,lbfgs", "data.batch_size=full", "fuse=on")
    assert code == 2
    assert "1 jobs: LBFGS has no rule" in errors


# -- what is added from outside ------------------------------------------------------------------------------------------


def test_every_kind_of_regularizer_compiles_to_what_single_runs_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if not shutil.which("g++"):
        pytest.skip("there is no C++ compiler here")
    use("compiled", monkeypatch)
    monkeypatch.setattr(programs, "_programs", {})
    caplog.set_level("INFO", logger="ockham")
    names = ("none", "l1", "l2", "max_norm", "[dropconnect,l1,spectral_norm]", "a noise from outside", "two of one class")
    names = (*names, "ema", "swa", "lookahead", "gradient_centralization", "[asam,dropout,gradient_noise,l2,spectral_norm]")
    members = [[*reg(name), "trainer.precision=64-true", f"seed={seed % 2}"] for seed, name in enumerate(names)]
    alone, fused = run_both(tmp_path, members)
    assert caplog.text.count("compiled in") == 2  # the gradients, and the update of the one optimizer
    for one, member in zip(alone, fused, strict=True):
        assert_close(one.folder, member.folder)


CUBIC = '''
from ockham.reg import Regularizer

class Cubic(Regularizer):
    """strength * sum |w|^3."""

    def __init__(self, strength):
        self.strength = strength

    def penalty(self, weight):
        return self.strength * weight.abs().pow(3).sum()
'''


def test_what_a_file_each_adds_is_fused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A regularizer is a class and a yaml; an optimizer of torch a yaml, and a rule to be fused. Nothing else knows of them."""
    (tmp_path / "cubic.py").write_text(CUBIC)
    for group, option, text in (
        ("reg", "cubic", "cubic:\n  _target_: cubic.Cubic\n  strength: 0.1\n"),
        ("optimizer", "mine", "_target_: torch.optim.Adamax\nlr: 2e-3\nweight_decay: 0\n"),
    ):
        (tmp_path / "conf" / group).mkdir(parents=True)
        (tmp_path / "conf" / group / f"{option}.yaml").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    added = [f"hydra.searchpath=[file://{tmp_path / 'conf'}]", "optimizer=mine", "trust=[cubic]", "trainer.precision=64-true"]
    members = [[*added, "reg=cubic"], [*added, "reg=[cubic,dropout]", "reg.cubic.strength=0.3"], [*added, "reg=none"]]
    described = contents(*members)
    for content in described:
        schema.check(content)
    rule = RULES["torch.optim.Adamax"]
    monkeypatch.delitem(RULES, "torch.optim.Adamax")
    assert partition_jobs(described, slots=1).alone[0] == "Adamax has no rule"
    monkeypatch.setitem(RULES, "torch.optim.Adamax", rule)
    assert partition_jobs(described, slots=1).groups == ((0, 1, 2),)
    for form in ("native", "rules"):
        use(form, monkeypatch)
        alone, fused = run_both(tmp_path / form, members)
        assert alone[0].folder.metrics()["penalty"] > 0
        for one, member in zip(alone, fused, strict=True):
            assert_close(one.folder, member.folder)
