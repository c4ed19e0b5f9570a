"""A group of runs that train as one program, each in its run folder."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from ockham import build
from ockham.fused.group import Member, train_group
from ockham.record.folder import FINAL
from ockham.record.ledger import Ledger, RunSpec, opened
from ockham.sweep.prune import pruner


def execute_group(specs: Sequence[RunSpec], checkpoints: Path) -> None:
    """Train the runs as one group that continues from the folder `checkpoints`; each leaves its own run folder.

    A run that has ended for good keeps its folder as it is, and is computed with the others. One that cannot be built has
    failed by itself, which its folder says. Folds of unequal size take turns, since batches are shared.
    """
    ledgers = [
        Ledger(
            spec,
            prune=pruner(spec.config.prune, spec.folder, spec.config.objective),
            shared=len(specs),
            writes=spec.folder.state not in FINAL,
        )
        for spec in specs
    ]
    with opened(ledgers):
        checkpoints.mkdir(parents=True, exist_ok=True)  # tells a group that was killed from runs that began alone
        members = []
        for ledger, run in zip(ledgers, build.runs([spec.config for spec in specs]), strict=True):
            if isinstance(run, Exception):
                ledger.fail(run)
            else:
                members.append(Member(run, ledger))
        for size in dict.fromkeys(len(member.run.splits.train) for member in members):
            train_group([member for member in members if len(member.run.splits.train) == size], checkpoints / f"{size}.ckpt")
    shutil.rmtree(checkpoints, ignore_errors=True)
