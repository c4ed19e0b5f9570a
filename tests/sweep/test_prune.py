"""Ending runs that fall behind."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from omegaconf import OmegaConf

from conftest import make_spec
from ockham.execute import execute
from ockham.record.folder import EPOCH_SCALARS, RunFolder
from ockham.sweep.prune import asha, median, pruner
from sweeps import sweep, table


def study_of(curves: Sequence[Sequence[float]], pruner: Any) -> tuple[Any, list[bool]]:
    """Whether Optuna would prune the last curve at each of its epochs, after the others in turn."""
    study = optuna.create_study(pruner=pruner)
    decisions: list[bool] = []
    for curve in curves:
        trial = study.ask()
        decisions = []
        for epoch, value in enumerate(curve, start=1):
            trial.report(value, epoch)
            decisions.append(trial.should_prune())
        study.tell(trial, min(curve))
    return study, decisions


def test_the_median_rule_is_optunas() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    chance = np.random.default_rng(0)
    pruned = 0
    for _ in range(50):
        curves = [list(np.sort(chance.random(8))[::-1] + chance.random()) for _ in range(7)]
        reference = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1)
        _, expected = study_of(curves, reference)
        peers = partial(list, curves[:-1])
        decisions = [median(curves[-1][:epoch], peers, min_epochs=2, min_peers=4) for epoch in range(1, 9)]
        assert decisions[1:] == expected[1:]
        pruned += any(decisions)
    assert 5 < pruned < 45


def test_successive_halving_keeps_the_best_third_at_each_rung() -> None:
    peers = [[float(rank)] * 9 for rank in range(8)]
    for rank in range(9):
        costs = [rank - 0.5] * 9
        kept = not asha(costs, lambda: peers, min_epochs=9, reduction=3)
        assert kept == (sum(peer[0] < costs[0] for peer in peers) < 3)
    assert not asha([9.0] * 2, lambda: peers, min_epochs=1, reduction=3)  # between rungs
    assert not asha([9.0], list, min_epochs=1, reduction=3)  # the first of all
    assert asha([9.0], lambda: peers[:1], min_epochs=1, reduction=3)
    assert asha([9.0] * 3, lambda: peers, min_epochs=1, reduction=3)


def test_a_run_asks_those_of_the_same_seed(tmp_path: Path) -> None:
    """A peer that is ahead prunes a run of its own seed, not that of another."""
    jobs = [{"number": number, "replicate": [f"seed={number % 2}"]} for number in range(4)]
    (tmp_path / "sweep.json").write_text(json.dumps({"jobs": jobs}))
    ahead = RunFolder(tmp_path / "0")
    ahead.path.mkdir()
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "metrics.csv").write_text("epoch,step,val/acc\n1,1,?\n")  # damaged: nobody is compared with it
    for epoch in range(1, 10):
        ahead.append_epoch(epoch, epoch, {**dict.fromkeys(EPOCH_SCALARS, 0.0), "val/acc": 1.0})
    overrides = ("prune=asha", "trainer.max_epochs=3", "data.train_samples=200", "model.hidden=[8]", "logger=csv")
    for number, state in ((2, "pruned"), (3, "finished")):
        job = make_spec(tmp_path / str(number), *overrides, f"seed={number % 2}")
        value = execute(job)
        assert job.folder.state == state
        assert len(job.folder.epochs()) == (1 if state == "pruned" else 3)
        if state == "pruned":
            assert value == job.folder.epochs()[0]["val/acc"]


def test_a_peer_that_goes_on_is_read_again(tmp_path: Path) -> None:
    """What is kept of its curve is that of the file as it was."""
    (tmp_path / "sweep.json").write_text(json.dumps({"jobs": [{"number": n, "replicate": []} for n in range(2)]}))
    folder, peer = RunFolder(tmp_path / "0"), RunFolder(tmp_path / "1")
    peer.path.mkdir()
    settings = OmegaConf.create({"rule": "asha", "min_epochs": 1, "reduction": 2})
    behind = pruner(settings, folder, "val/loss")
    assert behind is not None
    assert not behind([1.0]), "the peer has written nothing yet"
    for epoch, loss in ((1, 2.0), (2, 0.5)):
        peer.append_epoch(epoch, epoch, {**dict.fromkeys(EPOCH_SCALARS, 0.0), "val/loss": loss})
        assert behind([1.0] * epoch) == (loss < 1.0)
    peer.write_epochs([(epoch, epoch, {**dict.fromkeys(EPOCH_SCALARS, 0.0), "val/loss": 3.5}) for epoch in (1, 2)])
    assert not behind([1.0] * 2), "it was written anew"


def test_pruned_runs_stand_in_the_tables(tmp_path: Path) -> None:
    arguments = (
        "optimizer=adam",
        "optimizer.lr=0.01,0.001,1e-6,1e-7",
        "prune=asha",
        "executor.slots=1",
        "executor.threads=1",
        "trainer.max_epochs=9",
    )
    code, out, errors = sweep(tmp_path / "sweep", *arguments)
    assert (code, errors) == (0, "")
    assert [row["state"] for row in table(tmp_path / "sweep", "results.csv")] == ["finished", "pruned", "pruned", "pruned"]
    assert "3 pruned" in out
    code, out, _ = sweep(tmp_path / "sweep", *arguments)
    assert "4 of 4 jobs are finished already" in out
