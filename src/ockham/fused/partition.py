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
from typing import TYPE_CHECKING, Any

from ockham.core import datasets
from ockham.core.datasets import Sizes
from ockham.core.steps import AVERAGING, PERTURBING
from ockham.optim.rules import rule_of

if TYPE_CHECKING:
    from ockham.reg import Regularizer

Content = Mapping[str, Any]

MODELS = ("ockham.models.MLP", "ockham.models.Linear")
PRECISIONS = ("32-true", "64-true")

#: What members of a group have in common.
COMMON = ("data", "augment", "model", "trainer", "objective", "loss", "measure", "test", "logger", "cv", "trust")

#: Regularizers of Ockham under which copies of a batch go through the model side by side (`Regularizer.repeats`).
REPEATS = {"ockham.reg.RDrop": 2}

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
#: And where it has a hook: an average; the place and the gradient of a second pass.
NUMBERS_OF_HOOKS = {"after_step": 1, "perturb": 2}
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
    """Each job, given by its configuration, exactly once. Groups are as few as their cap allows, those of one shape of nearly
    equal size, and no larger than what a slot gets of the work of all groups where that leaves two members to each; the longest
    come first, so that the slots end together. Members of one seed stand together, since they share batches.

    `memory` are the bytes that all slots have together, None where they are not known.
    """
    alone: dict[int, str] = {}
    classes: dict[str, list[int]] = {}
    for position, content in enumerate(contents):
        reason = why_alone(content)
        if reason is None:
            # All members of a group take as many passes as one of them.
            shape = [*(content[key] for key in COMMON), repeats_of(content), passes_of(content)]
            classes.setdefault(json.dumps(shape, sort_keys=True), []).append(position)
        else:
            alone[position] = reason
    groups: list[tuple[int, ...]] = []
    work = {key: job_work(contents[members[0]]) for key, members in classes.items()}
    total = sum(work[key] * len(members) for key, members in classes.items() if len(members) > 1)
    for key, members in classes.items():
        if len(members) == 1:
            alone[members[0]] = "no other job of its shape"
            continue
        widest = max((contents[member] for member in members), key=member_bytes)
        largest = cap(widest, memory=None if memory is None else memory // slots)
        if largest < 2:
            bytes_each = member_bytes(widest) / 2**20
            alone |= dict.fromkeys(members, f"a member of a group takes {bytes_each:,.0f} MiB, and there is no room for two")
            continue
        members.sort(key=lambda position: (contents[position]["seed"], contents[position]["fold"] or 0, position))
        shares = -(-slots * work[key] * len(members) // total)
        number = max(math.ceil(len(members) / largest), min(shares, len(members) // 2))
        bounds = [len(members) * index // number for index in range(number + 1)]
        groups += [tuple(members[low:high]) for low, high in pairwise(bounds)]
    groups.sort(key=lambda group: -len(group) * job_work(contents[group[0]]))
    return Partition(tuple(groups), alone)


def why_alone(content: Content) -> str | None:
    """Why a job cannot be a member of a group; None where it can."""
    model, optimizer = content["model"].get("_target_"), content["optimizer"].get("_target_")
    trainer = content["trainer"]
    if model not in MODELS:
        return f"{_name(model)} has no stacked form"
    try:
        rule, _ = rule_of(str(optimizer), {name: value for name, value in content["optimizer"].items() if name != "_target_"})
    except ValueError as error:
        return str(error)
    schedule = str(content["schedule"].get("_target_"))
    if not schedule.startswith("ockham.schedules."):
        return f"schedule {_name(schedule)} is not one of Ockham's"
    for name in _with_hook(content, "configure_model"):
        return f"reg={name} changes the model in configure_model"
    if content["model"].get("batch_norm") and (rule.average is not None or _with_hook(content, "after_step")):
        return "statistics of batch norm for averaged weights are computed in single runs"
    if trainer["devices"] != 1:
        return "several devices work on single runs"
    if trainer["precision"] not in PRECISIONS:
        return f"trainer.precision={trainer['precision']} is done in single runs"
    return None


#: Ockham's regularizers with the hooks that the plan asks for.
WITH_HOOK = {"configure_model": (), "after_step": AVERAGING, "perturb": PERTURBING}


def passes_of(content: Content) -> int:
    """Forward and backward passes of a step."""
    return 2 if _with_hook(content, "perturb") else 1


def _with_hook(content: Content, hook: str) -> list[str]:
    """The keys of the job's regularizers that have the hook."""
    targets = {name: str(settings.get("_target_")) for name, settings in content["reg"].items()}
    return [name for name, target in targets.items() if _has_hook(target, hook, tuple(content["trust"]))]


def _has_hook(target: str, hook: str, trust: tuple[str, ...]) -> bool:
    if target.startswith("ockham.reg."):
        return target in WITH_HOOK[hook]
    from ockham.reg.base import has_hook

    return has_hook(_imported(target, trust), hook)


def repeats_of(content: Content) -> int:
    """Copies of a batch that go through the model side by side."""
    targets = [str(settings.get("_target_")) for settings in content["reg"].values()]
    return max((_repeats(target, tuple(content["trust"])) for target in targets), default=1)


def _repeats(target: str, trust: tuple[str, ...]) -> int:
    return REPEATS.get(target, 1) if target.startswith("ockham.reg.") else _imported(target, trust).repeats


@cache
def _imported(target: str, trust: tuple[str, ...]) -> "type[Regularizer]":
    """The class of a regularizer from elsewhere."""
    from ockham.build import resolve
    from ockham.reg import Regularizer

    return resolve(target, Regularizer, setting="reg.*._target_", trust=trust)


def _name(target: Any) -> str:
    return str(target).rpartition(".")[2]


def sizes_of(content: Content) -> Sizes:
    """The sizes of the job's data set; of one that is not known by name a guess, since nothing is read before the plan."""
    data = content["data"]
    side = data.get("size", 32)
    guess = Sizes(50_000, None, 10_000, data.get("num_classes") or 10, 1, (3, side, side))
    return datasets.sizes_of(data) or guess


def _samples(content: Content) -> int:
    """Of an epoch, not less those that are drawn for validation."""
    return content["data"].get("train_samples") or sizes_of(content).train


def _widths(content: Content) -> list[int]:
    """Of the layers, from the input to the output."""
    sizes = sizes_of(content)
    return [sizes.pixels, *content["model"].get("hidden", []), sizes.num_classes]


def _parameters(content: Content) -> int:
    return sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(_widths(content)))


def _batch(content: Content) -> int:
    batch_size = content["data"]["batch_size"]
    return _samples(content) if batch_size == "full" else min(batch_size, _samples(content))


def job_work(content: Content) -> int:
    """What a job takes beside others: its parameters, once for each sample that it works on."""
    max_epochs, max_steps = content["trainer"]["max_epochs"], content["trainer"]["max_steps"]
    epochs = [] if max_epochs is None else [max_epochs * _samples(content)]
    steps = [] if max_steps is None else [max_steps * _batch(content)]
    return _parameters(content) * min(epochs + steps)


def member_bytes(content: Content) -> int:
    """What a member of a group takes: parameters with all that goes with them, a batch and its activations, its order."""
    sizes, trainer, widths = sizes_of(content), content["trainer"], _widths(content)
    samples, parameters, repeats = _samples(content), _parameters(content), repeats_of(content)
    batch = _batch(content) * repeats
    inputs = min(batch * trainer["accumulate_grad_batches"], samples * repeats) * sizes.pixels
    activations = sum(widths[1:]) * max(NUMBERS_A_UNIT * batch, 2 * EVALUATED_AT_ONCE)
    # Inputs are there twice: as the seeds have them, and as each member multiplies them.
    # With what it is rewound to, and that in the best weights.
    each = NUMBERS_A_PARAMETER + 2 * ("magnitude_pruning" in content["reg"])
    each += sum(number for hook, number in NUMBERS_OF_HOOKS.items() if _with_hook(content, hook))
    each += sum(name in content["measure"] for name in MEASURES_WITH_WEIGHTS)
    numbers = each * parameters + 2 * inputs + activations
    # Each product with a Jacobian is a further pass, whose numbers are kept to be differentiated, down to the inputs.
    projections = content["reg"].get("jacobian", {}).get("projections", 0)
    numbers += (sizes.num_classes if projections == "all" else projections) * (2 * inputs + activations)
    return numbers * (8 if trainer["precision"] == "64-true" else 4) + 2 * 8 * samples


def cap(content: Content, *, memory: int | None = None) -> int:
    """How many members a group may have in a process with so much memory; None where it is not known."""
    bytes_each = member_bytes(content)
    members = max(min(GROUP_BYTES // bytes_each, LARGEST_CAP), SMALLEST_CAP)
    if memory is None:
        return members
    sizes = sizes_of(content)
    return min(members, max(memory - PROCESS_BYTES - sizes.images * sizes.pixels, 0) // bytes_each)
