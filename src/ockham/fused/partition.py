"""Which jobs of a sweep train together: a pure function of the job list and of the memory there is.

Without torch, unless a regularizer comes from outside.

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

from ockham.core import datasets
from ockham.core.datasets import Sizes
from ockham.optim.rules import rule_of

Content = Mapping[str, Any]

MODELS = ("ockham.models.MLP", "ockham.models.Linear")
PRECISIONS = ("32-true", "64-true")

#: What members of a group have in common.
COMMON = ("data", "augment", "model", "trainer", "objective", "loss", "measure", "logger", "cv", "trust")

#: A member and step takes the less time the larger its group, up to LARGEST_CAP: see the table of scripts/bench_sweep.py
#: --case sizes in docs/benchmarks.md. A group takes GROUP_BYTES at most, which any GPU has too, unless SMALLEST_CAP take more.
GROUP_BYTES = 2**30
SMALLEST_CAP, LARGEST_CAP = 4, 64

#: A process before it trains, with torch and Lightning imported (measured on Linux).
PROCESS_BYTES = 800 * 2**20

#: Numbers that a member holds for each parameter: itself, its gradient, two moments, and the best so far.
NUMBERS_A_PARAMETER = 5
#: These measures keep weights that others are compared with.
MEASURES_WITH_WEIGHTS = ("update_norm", "weight_distance")
#: And for each unit and sample of what it works on at a time, as measured on full batches: the product, what the activation
#: function and noise make of it, and their gradients.
NUMBERS_A_UNIT = 6
#: Samples of which members are evaluated at once, which keeps two numbers a unit.
EVALUATED_AT_ONCE = 1024


@dataclass(frozen=True)
class Partition:
    """Positions in the job list: groups that train together, and the others with the reason."""

    groups: tuple[tuple[int, ...], ...]
    alone: Mapping[int, str]


def partition_jobs(contents: Sequence[Content], *, slots: int, memory: int | None = None) -> Partition:
    """Each job, given by its configuration, exactly once. Groups are as few as their cap allows, of nearly equal size, and as
    many as there are slots to work on them where that leaves two members to each; members of one seed stand together, since
    they share batches.

    `memory` are the bytes that all slots have together, None where they are not known.
    """
    alone: dict[int, str] = {}
    classes: dict[str, list[int]] = {}
    for position, content in enumerate(contents):
        reason = why_alone(content)
        if reason is None:
            classes.setdefault(json.dumps([content[key] for key in COMMON], sort_keys=True), []).append(position)
        else:
            alone[position] = reason
    groups: list[tuple[int, ...]] = []
    for members in classes.values():
        if len(members) == 1:
            alone[members[0]] = "no other job of its shape"
            continue
        largest = cap(contents[members[0]], memory=None if memory is None else memory // slots)
        if largest < 2:
            bytes_each = member_bytes(contents[members[0]]) / 2**20
            alone |= dict.fromkeys(members, f"a member of a group takes {bytes_each:,.0f} MiB, and there is no room for two")
            continue
        members.sort(key=lambda position: (contents[position]["seed"], contents[position]["fold"] or 0, position))
        number = max(math.ceil(len(members) / largest), min(slots, len(members) // 2))
        bounds = [len(members) * index // number for index in range(number + 1)]
        groups += [tuple(members[low:high]) for low, high in pairwise(bounds)]
    return Partition(tuple(groups), alone)


def why_alone(content: Content) -> str | None:
    """Why a job cannot be a member of a group; None where it can."""
    model, optimizer = content["model"].get("_target_"), content["optimizer"].get("_target_")
    trainer = content["trainer"]
    if model not in MODELS:
        return f"{_name(model)} has no stacked form"
    try:
        rule_of(str(optimizer), {name: value for name, value in content["optimizer"].items() if name != "_target_"})
    except ValueError as error:
        return str(error)
    schedule = str(content["schedule"].get("_target_"))
    if not schedule.startswith("ockham.schedules."):
        return f"schedule {_name(schedule)} is not one of Ockham's"
    for name, settings in content["reg"].items():
        if _changes_model(str(settings.get("_target_")), tuple(content["trust"])):
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


def sizes_of(content: Content) -> Sizes:
    """The sizes of the job's data set; of one that is not known by name a guess, since nothing is read before the plan."""
    data = content["data"]
    side = data.get("size", 32)
    guess = Sizes(50_000, None, 10_000, data.get("num_classes") or 10, 1, (3, side, side))
    return datasets.sizes_of(data) or guess


def member_bytes(content: Content) -> int:
    """What a member of a group takes: parameters with all that goes with them, a batch and its activations, its order."""
    sizes, trainer = sizes_of(content), content["trainer"]
    samples = content["data"].get("train_samples") or sizes.train
    batch_size = content["data"]["batch_size"]
    batch = samples if batch_size == "full" else min(batch_size, samples)
    inputs = min(batch * trainer["accumulate_grad_batches"], samples) * sizes.pixels
    hidden = content["model"].get("hidden", [])
    widths = [sizes.pixels, *hidden, sizes.num_classes]
    parameters = sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(widths))
    activations = sum(widths[1:]) * max(NUMBERS_A_UNIT * batch, 2 * EVALUATED_AT_ONCE)
    # Inputs are there twice: as the seeds have them, and as each member multiplies them.
    numbers_a_parameter = NUMBERS_A_PARAMETER + sum(name in content["measure"] for name in MEASURES_WITH_WEIGHTS)
    numbers = numbers_a_parameter * parameters + 2 * inputs + activations
    return numbers * (8 if trainer["precision"] == "64-true" else 4) + 2 * 8 * samples


def cap(content: Content, *, memory: int | None = None) -> int:
    """How many members a group may have in a process with so much memory; None where it is not known."""
    bytes_each = member_bytes(content)
    members = max(min(GROUP_BYTES // bytes_each, LARGEST_CAP), SMALLEST_CAP)
    if memory is None:
        return members
    sizes = sizes_of(content)
    return min(members, max(memory - PROCESS_BYTES - sizes.images * sizes.pixels, 0) // bytes_each)
