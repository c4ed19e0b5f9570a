"""A comparison as a plan: every arm is searched with the same budget, then its best setting is run under seeds that no search
saw.

The selection follows from the objective on validation of the search runs, which leave the test set untouched; what arms are
compared by are the runs of the confirmation alone.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations, product
from typing import Any

from ockham.errors import UserError
from ockham.identity import digest
from ockham.sweep.command_line import CommandLine
from ockham.sweep.costs import Costs
from ockham.sweep.folder import SweepFolder
from ockham.sweep.grid import Grid
from ockham.sweep.jobs import Job, Replicate, configuration_jobs, with_values
from ockham.sweep.operations import Operations
from ockham.sweep.search import Search, grown

log = logging.getLogger("ockham")

#: What the search runs of a comparison are composed with, and those of the confirmation are not.
UNTESTED = "test=false"

#: Settings of these groups decide how many operations a run takes; so do options of any group.
DECIDE_COST = ("data.", "model.", "trainer.", "reg.")

#: Seeds of the confirmation where nothing is said; those of a block, and of all blocks, where their number is not fixed.
DEFAULT_SEEDS = 10
SEEDS_A_BLOCK, MOST_SEEDS = 10, 100


@dataclass(frozen=True)
class Arm:
    """One of what is compared, with the plan of the search of its best setting."""

    name: str
    plan: Grid | Search


def arm_lines(lines: Sequence[CommandLine], names: Sequence[str]) -> dict[str, list[CommandLine]]:
    """The parts of the lines by arm: one arm for each combination of values of the settings in `names`.

    Raises UserError where the lines do not say what is compared, or say one value only.
    """
    by_arm: dict[str, list[CommandLine]] = {}
    for line in lines:
        axes = [next((axis for axis in line.axes if axis.name == name), None) for name in names]
        for name, axis in zip(names, axes, strict=True):
            if axis is None:
                raise UserError(f"compare={name} has nothing to compare: name several, as in {name}=<one>,<another>")
            if axis.interval is not None:
                raise UserError(f"compare={name} compares values one by one, and {axis.argument} is an interval: list values")
        for chosen in product(*(range(len(axis.texts)) for axis in axes if axis is not None)):
            part = line.narrowed(dict(zip(names, chosen, strict=True)))
            if part.combinations:
                by_arm.setdefault(_name(part, names), []).append(part)
    if len(by_arm) < 2:
        raise UserError(f"compare={','.join(names)} has one arm, {next(iter(by_arm), 'none')}: name several values to compare")
    return by_arm


def _name(line: CommandLine, names: Sequence[str]) -> str:
    """`adam, l2`: options by themselves, settings with the last part of their name."""
    texts = {axis.name: axis.texts[0].partition("=")[2] for axis in line.axes if axis.name in names}
    return ", ".join(texts[name] if "." not in name else f"{name.rpartition('.')[2]} {texts[name]}" for name in names)


def trials_of_equal_cost(by_arm: Mapping[str, Sequence[CommandLine]], trials: int) -> dict[str, int]:
    """How many trials each arm gets, so that none spends more floating-point operations than `trials` of the cheapest arm do;
    one at the least.

    Raises UserError where trials of one arm differ in cost. Seconds would be no budget that a restart could repeat: the clock
    would decide which trials there are.
    """
    operations = Operations()
    flops: dict[str, float] = {}
    for name, lines in by_arm.items():
        costs: set[float] = set()
        for combination in (combination for line in lines for combination in line.combinations):
            fixed = {axis.name: axis.values[0] for axis in combination.fitting}
            varied = [axis for axis in combination.fitting if axis.is_swept and axis.name.startswith(DECIDE_COST)]
            values = [{**fixed, axis.name: value} for axis in varied for value in axis.values]
            costs |= {operations.of(with_values(combination.content, each)).flops for each in (fixed, *values)}
        if len(costs) > 1:
            raise UserError(
                f"budget=flops needs trials of one cost within an arm, and those of {name} take {min(costs):.3g} to "
                f"{max(costs):.3g} operations: name what they differ in in compare too, or say budget=trials"
            )
        flops[name] = max(costs)
    most = trials * min(flops.values())
    return {name: max(int(most / cost * (1 + 1e-9)), 1) for name, cost in flops.items()}


def check_budgets(arms: Sequence[Arm]) -> None:
    """Raises UserError for grids of different sizes: the arm with more settings to choose from would be favoured."""
    sizes = {arm.name: len({job.configuration_key for job in arm.plan.jobs}) for arm in arms if isinstance(arm.plan, Grid)}
    tuned = {name: size for name, size in sizes.items() if size > 1}
    if len(set(tuned.values())) > 1:
        listed = ", ".join(f"{name} {size}" for name, size in tuned.items())
        raise UserError(
            f"the arms have grids of different sizes ({listed} settings), and the larger one would be favoured: list as many "
            f"values for each, or let search=random search.trials=<n> try as many of each"
        )


@dataclass(frozen=True)
class Confirmation:
    """The replicates under which best settings are run again, `block` of them at a time.

    With `resolve` blocks are added until every difference between two arms is known within it, with intervals that hold at all
    looks together (core.statistics.price_of_looks), or all replicates are used.
    """

    replicates: tuple[Replicate, ...]
    block: int
    resolve: float | None = None

    def level(self, blocks: int, arms: int) -> float:
        """The level of the interval of each difference between two of the arms after so many blocks."""
        from ockham.core.statistics import LEVEL, price_of_looks  # late: SciPy is no part of planning

        return LEVEL if self.resolve is None else LEVEL / price_of_looks(blocks) / max(math.comb(arms, 2), 1)

    def half_width(self, blocks: int, arms: int, deviation: float) -> float:
        """How far that interval reaches to each side where differences have this standard deviation."""
        from ockham.core.statistics import half_width

        return half_width(blocks * self.block, deviation, level=self.level(blocks, arms))

    def blocks_needed(self, arms: int, deviation: float) -> int | None:
        """After so many blocks `resolve` is reached at such a deviation; None where all of them do not suffice."""
        blocks = range(1, -(-len(self.replicates) // self.block) + 1)
        return next((n for n in blocks if self.half_width(n, arms, deviation) <= (self.resolve or math.inf)), None)


class Comparison:
    """The jobs of all arms, then those that confirm the best setting of each, once all others have ended."""

    duplicates = 0

    def __init__(
        self,
        arms: Sequence[Arm],
        folder: SweepFolder,
        *,
        names: Sequence[str],
        objective: str,
        confirm: "Confirmation",
        first: int,
    ) -> None:
        """`names` are the settings in which arms differ; the jobs of the confirmation are numbered from `first` on."""
        self.arms, self.folder, self.confirm, self.first = tuple(arms), folder, confirm, first
        self.metric = objective.replace("val/", "test/")
        #: How many blocks of the confirmation have begun.
        self.blocks = 0
        self.costs = Costs(folder, objective)
        #: By the name of an arm the key of its best configuration.
        self.selected: dict[str, str] = {}
        self.swept = tuple(
            dict.fromkeys([*names, *chain.from_iterable(arm.plan.swept for arm in arms), *confirm.replicates[0].values])
        )
        self._known: dict[int, Job] = {}
        #: By arm, and block of the confirmation.
        self._confirming: dict[tuple[str, int], list[Job]] = {}

    @property
    def jobs(self) -> tuple[Job, ...]:
        for job, arm, stage in self._all():
            if job.number not in self._known:
                self._known[job.number] = replace(job, arm=arm.name, stage=stage)
        return tuple(self._known[number] for number in sorted(self._known))

    def _all(self) -> Iterator[tuple[Job, Arm, Any]]:
        for position, arm in enumerate(self.arms):
            yield from ((job, arm, "search") for job in arm.plan.jobs)
            for block in range(self.blocks if arm.name in self.selected else 0):
                if (arm.name, block) not in self._confirming:
                    self._confirming[arm.name, block] = self._confirmation(arm, position, block)
                yield from ((job, arm, "confirm") for job in self._confirming[arm.name, block])

    @property
    def total(self) -> int:
        return sum(arm.plan.total for arm in self.arms) + len(self.arms) * self.confirm.block * max(self.blocks, 1)

    @property
    def waits_for_results(self) -> bool:
        return all(arm.plan.waits_for_results for arm in self.arms) or self._is_searched()

    def _is_searched(self) -> bool:
        return all(isinstance(arm.plan, Grid) or arm.plan.is_complete for arm in self.arms)

    def foreseen(self) -> Sequence[Job]:
        for arm in self.arms:
            arm.plan.foreseen()
        return self.jobs

    def identity(self) -> str:
        arms = [[arm.name, arm.plan.identity()] for arm in self.arms]
        replicates = [replicate.overrides for replicate in self.confirm.replicates]
        return digest({"arms": arms, "confirm": replicates, "block": self.confirm.block, "resolve": self.confirm.resolve})

    def state(self) -> dict[str, Any]:
        arms = {arm.name: {"space": arm.plan.space_by_name, **arm.plan.state()} for arm in self.arms}
        return {"arms": arms, "selected": self.selected, "blocks": self.blocks, "looks": self.looks}

    def restore(self, stored: Mapping[str, Any]) -> None:
        for arm in self.arms:
            arm.plan.restore(stored["arms"][arm.name])
        self.selected, self.blocks = dict(stored["selected"]), stored["blocks"]

    def batches(self, jobs: Sequence[Job]) -> list[Sequence[Job]]:
        """By what the arms have asked for together; the confirmation of all arms is one batch."""
        batches: dict[Any, list[Job]] = {}
        for arm in self.arms:
            of_arm = [job for job in jobs if job.arm == arm.name]
            for number, batch in enumerate(arm.plan.batches([job for job in of_arm if job.stage == "search"])):
                batches.setdefault(number, []).extend(batch)
        confirming = [job for job in jobs if job.stage == "confirm"]
        return [*batches.values(), *([confirming] if confirming else [])]

    def more(self, *, slots: int) -> Sequence[Job]:
        return grown(self, self.folder, slots=slots)

    def grow(self, *, slots: int) -> bool:
        """Further trials of all arms; once there are none, and all have ended, the confirmation."""
        searches = [arm.plan for arm in self.arms if isinstance(arm.plan, Search)]
        if sum(search.grow(slots=slots) for search in searches):  # all of them, not up to the first that grows
            return True
        if any(self.costs.of(job) is None for job in self.jobs):
            return False
        if self.selected:
            return self._confirm_more()
        for arm in self.arms:
            best = self._best(arm)
            if best is None:
                log.warning("warning: no run of %s has come to its end, nothing of it is confirmed", arm.name)
            else:
                self.selected[arm.name] = best
        self.blocks = 1
        return bool(self.selected)

    @property
    def looks(self) -> int:
        """How often the results of the confirmation have been looked at to decide whether to go on; 0 where that is fixed."""
        return self.blocks if self.confirm.resolve is not None else 0

    def _confirm_more(self) -> bool:
        """Begin the next block of seeds, where the differences between arms are not known well enough."""
        resolve = self.confirm.resolve
        if resolve is None or self.blocks * self.confirm.block >= len(self.confirm.replicates):
            return False
        from ockham.core.statistics import t_interval  # late: SciPy is no part of planning

        scores = [self._scores(arm) for arm in self.arms if arm.name in self.selected]
        level = self.confirm.level(self.blocks, len(scores))
        for first, second in combinations(scores, 2):
            low, high = t_interval([first[key] - second[key] for key in first if key in second], level=level)
            if high - low > 2 * resolve:
                self.blocks += 1
                return True
        return False

    def _scores(self, arm: Arm) -> dict[tuple[str, ...], float]:
        """The test results of the confirmation of an arm, by seed and fold."""
        jobs = [job for job in self.jobs if (job.arm, job.stage) == (arm.name, "confirm")]
        results = {job.replicate: self.folder.metrics(job).get(self.metric) for job in jobs}
        return {replicate: value for replicate, value in results.items() if value is not None}

    def _best(self, arm: Arm) -> str | None:
        """The configuration with the best mean objective; of two the first. Those with a run that failed come last."""
        ranks: list[tuple[bool, float, int, str]] = []
        for number, (key, jobs) in enumerate(self._configurations(arm).items()):
            cost = self.costs.of_trial(jobs)
            if cost is not None and math.isfinite(cost):
                is_partial = any(self.folder.state(job) != "finished" for job in jobs)
                ranks.append((is_partial, cost, number, key))
        return min(ranks)[3] if ranks else None

    @staticmethod
    def _configurations(arm: Arm) -> dict[str, list[Job]]:
        """The jobs of an arm by configuration."""
        by_key: dict[str, list[Job]] = {}
        for job in arm.plan.jobs:
            by_key.setdefault(job.configuration_key, []).append(job)
        return by_key

    def _confirmation(self, arm: Arm, position: int, block: int) -> list[Job]:
        """The best setting of an arm under the seeds of a block, with the test set."""
        searched = self._configurations(arm)[self.selected[arm.name]][0]
        left_out = (*searched.replicate, UNTESTED)
        overrides = [text for text in searched.overrides if text not in left_out]
        replicates = self.confirm.replicates[block * self.confirm.block : (block + 1) * self.confirm.block]
        first = self.first + (block * len(self.arms) + position) * self.confirm.block
        return configuration_jobs(
            searched.content, {"test": True}, overrides, replicates, choices=searched.choices, first=first
        )  # fmt: skip


def confirmation_seeds(asked: int | Sequence[int], searched: Sequence[int]) -> list[int]:
    """The seeds of the confirmation: those that were asked for, or so many that follow those of the search.

    Raises UserError for a seed that the search sees.
    """
    if isinstance(asked, int):
        return list(range(max(searched) + 1, max(searched) + 1 + asked))
    seen = sorted(set(asked) & set(searched))
    if seen:
        raise UserError(f"confirm={list(asked)} holds seed {seen[0]}, which the search sees: choose others")
    return list(asked)
