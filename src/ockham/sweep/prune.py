"""Ending runs of a sweep that fall behind. No torch here.

The run itself asks, after each epoch, and reads what its peers wrote into their folders: there is no other channel, so that
it works wherever the sweep folder is seen.
"""

import math
import os
import statistics
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ockham.core.files import read_sealed_json
from ockham.core.selection import maximised
from ockham.record.folder import RunFolder

#: The curves of so many runs are kept in memory.
LARGEST_SWEEP = 4096

Costs = Sequence[float]
"""The objective of each epoch of a run, to be minimised."""


Peers = Callable[[], Sequence[Costs]]
"""Reads the costs of the peers, which takes a file for each: only where something is decided."""


def asha(costs: Costs, peers: Peers, *, min_epochs: int, reduction: int) -> bool:
    """Asynchronous successive halving (Li et al. 2020), without pausing runs.

    At the epochs min_epochs * reduction^k a run goes on if it is among the best 1 / reduction of those that came so far,
    itself included, or is the best of them while they are fewer than `reduction`.
    """
    rung = min_epochs
    while rung < len(costs):
        rung *= reduction
    if rung != len(costs):
        return False
    competing = sorted([min(costs), *(min(peer[:rung]) for peer in peers() if len(peer) >= rung)])
    return min(costs) > competing[max(len(competing) // reduction, 1) - 1]


def median(costs: Costs, peers: Peers, *, min_epochs: int, min_peers: int) -> bool:
    """The median rule (Golovin et al. 2017, as in Optuna): the best so far is worse than the peers' median at this epoch."""
    epoch = len(costs)
    if epoch < min_epochs:
        return False
    peer_costs = [peer[epoch - 1] for peer in peers() if len(peer) >= epoch]
    return len(peer_costs) >= min_peers and min(costs) > statistics.median(peer_costs)


RULES: dict[str, Callable[..., bool]] = {"asha": asha, "median": median}


def pruner(settings: DictConfig, folder: RunFolder, objective: str) -> Callable[[Costs], bool] | None:
    """Whether the run in `folder`, with these costs so far, is to end; None where nothing prunes it.

    `settings` are those of the group `prune`; a run is compared with those of the same seed and fold.
    """
    plan_file = folder.path.parent / "sweep.json"
    if settings.rule == "none" or not plan_file.exists():
        return None
    options = {str(key): value for key, value in settings.items() if key != "rule"}
    rule = RULES[settings.rule]

    def prune(costs: Costs) -> bool:
        return rule(costs, partial(_peers, plan_file, folder, objective), **options)

    return prune


def _peers(plan_file: Path, folder: RunFolder, objective: str) -> list[list[float]]:
    """The costs of every other run of the sweep that repeats under the same seed and fold."""
    replicates = _replicates(str(plan_file), _version(plan_file))
    replicate = replicates.get(folder.path.name)
    names = [name for name, other in replicates.items() if other == replicate and name != folder.path.name]
    files = [f"{plan_file.parent}/{name}/metrics.csv" for name in names]
    curves = [_costs(file, _version(file), objective) for file in files]
    return [curve for curve in curves if curve]


def _version(file: str | Path) -> tuple[int, ...]:
    """Another one when the file has changed; empty where there is none."""
    try:
        stat = os.stat(file)
    except OSError:
        return ()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=1)
def _replicates(plan_file: str, version: tuple[int, ...]) -> dict[str, Any]:
    """Seed and fold of each run of the sweep, and its arm, by the name of its folder.

    Runs of one arm of a comparison do not compete with those of another, or the arms would not be searched alike.
    """
    jobs = read_sealed_json(Path(plan_file))["jobs"]
    return {str(job["number"]): [job["replicate"], job.get("arm")] for job in jobs}


@lru_cache(maxsize=LARGEST_SWEEP)
def _costs(metrics_file: str, version: tuple[int, ...], objective: str) -> list[float]:
    """The objective of each epoch, to be minimised; none where the record is damaged, which does not concern this run.

    Members of a group ask for the same peers at the same time: what has not changed is not read again.
    """
    if not version:
        return []
    sign = -1.0 if maximised(objective) else 1.0
    try:
        values = [sign * row[objective] for row in RunFolder(Path(metrics_file).parent).epochs()]
    except (OSError, ValueError, TypeError, KeyError):
        return []
    return [math.inf if math.isnan(value) else value for value in values]
