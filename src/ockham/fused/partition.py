"""Which jobs of a sweep train together. A pure function of the job list, without torch unless a regularizer comes from outside.

Jobs can share one program when they agree in everything that fixes shapes and lengths; optimizer, schedule, regularizers,
seed and fold may differ.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

from ockham.optim.rules import rule_of

Content = Mapping[str, Any]

MODELS = ("ockham.models.MLP", "ockham.models.Linear")
PRECISIONS = ("32-true", "64-true")

#: What members of a group have in common.
COMMON = ("data", "augment", "model", "trainer", "objective", "logger", "cv", "trust")

#: A member and step takes the less time the larger its group, up to LARGEST_CAP: see the table of scripts/bench_sweep.py
#: --case sizes in docs/benchmarks.md. A group holds its parameters, their gradients and two moments in so many bytes.
GROUP_BYTES = 512 * 2**20
BYTES_PER_PARAMETER = 16
SMALLEST_CAP, LARGEST_CAP = 4, 64

#: Pixels of an image by data set; of others a guess, which only the size of groups depends on.
PIXELS = {"Mnist5k": 784, "Mnist": 784, "FashionMnist": 784, "Cifar10": 3072, "Cifar100": 3072}


@dataclass(frozen=True)
class Partition:
    """Positions in the job list: groups that train together, and the others with the reason."""

    groups: tuple[tuple[int, ...], ...]
    alone: Mapping[int, str]


def partition(jobs: Sequence[Content], *, slots: int) -> Partition:
    """Each job exactly once. Groups are as few as their cap allows, of nearly equal size, and as many as there are slots to
    work on them where that leaves two members to each; members of one seed stand together, since they share batches.
    """
    alone: dict[int, str] = {}
    classes: dict[str, list[int]] = {}
    for position, job in enumerate(jobs):
        reason = why_alone(job)
        if reason is None:
            classes.setdefault(json.dumps([job[key] for key in COMMON], sort_keys=True), []).append(position)
        else:
            alone[position] = reason
    groups: list[tuple[int, ...]] = []
    for members in classes.values():
        if len(members) == 1:
            alone[members[0]] = "no other job of its shape"
            continue
        members.sort(key=lambda position: (jobs[position]["seed"], jobs[position]["fold"] or 0, position))
        number = max(math.ceil(len(members) / cap(jobs[members[0]])), min(slots, len(members) // 2))
        bounds = [len(members) * index // number for index in range(number + 1)]
        groups += [tuple(members[low:high]) for low, high in pairwise(bounds)]
    return Partition(tuple(groups), alone)


def why_alone(job: Content) -> str | None:
    """Why a job cannot be a member of a group; None where it can."""
    model, optimizer = job["model"].get("_target_"), job["optimizer"].get("_target_")
    trainer = job["trainer"]
    if model not in MODELS:
        return f"{_name(model)} has no stacked form"
    try:
        rule_of(str(optimizer), {name: value for name, value in job["optimizer"].items() if name != "_target_"})
    except ValueError as error:
        return str(error)
    schedule = str(job["schedule"].get("_target_"))
    if not schedule.startswith("ockham.schedules."):
        return f"schedule {_name(schedule)} is not one of Ockham's"
    for name, settings in job["reg"].items():
        if _changes_model(str(settings.get("_target_")), tuple(job["trust"])):
            return f"reg={name} changes the model in configure_model"
    if trainer["devices"] != 1:
        return "several devices work on single runs"
    if trainer["precision"] not in PRECISIONS:
        return f"trainer.precision={trainer['precision']} is done in single runs"
    return None


@cache
def _changes_model(target: str, trust: tuple[str, ...]) -> bool:
    """Whether a regularizer does more than its pure hooks say. Those of Ockham do not; a class from elsewhere is imported."""
    if target.startswith("ockham.reg."):
        return False
    from ockham.build import resolve
    from ockham.reg import Regularizer
    from ockham.reg.base import has_hook

    return has_hook(resolve(target, Regularizer, setting="reg.*._target_", trust=trust), "configure_model")


def _name(target: Any) -> str:
    return str(target).rpartition(".")[2]


def num_parameters(job: Content) -> int:
    """Weights and biases of a job's dense layers, its image size guessed where the data set is not known by name."""
    data = job["data"]
    pixels = PIXELS.get(_name(data["_target_"]), 3 * data.get("size", 32) ** 2)
    widths = [pixels, *job["model"].get("hidden", []), 10]
    return sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(widths))


def cap(job: Content) -> int:
    """How many members a group may have."""
    return max(min(GROUP_BYTES // (BYTES_PER_PARAMETER * num_parameters(job)), LARGEST_CAP), SMALLEST_CAP)
