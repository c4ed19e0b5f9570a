"""Learning-rate schedules: the factor on the base learning rate, a pure function of (step, total steps).

`step` counts finished optimizer steps, so the first update runs at factor(0, total). Only `Plateau` looks at results; it is
a pure function too, of the validation history. Every class takes `warmup_steps`: the factor then rises linearly from
1 / (warmup_steps + 1), and the schedule proper is stretched over the steps that remain.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from ockham.core.selection import improvements


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The interface: `factor` is the schedule proper, a call adds the warm-up."""

    #: Whether `history` is read.
    depends_on_results: ClassVar[bool] = False

    warmup_steps: int = 0

    def __call__(self, step: int, total: int, history: Sequence[float] = ()) -> float:
        """The factor for the update after `step` finished ones of `total`.

        `history` holds a number per finished epoch, to be minimised; plateau alone reads it.
        """
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        return self.factor(step - self.warmup_steps, max(total - self.warmup_steps, 1))

    def factor(self, step: int, total: int) -> float:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """1. yaml: `schedule=constant`."""

    def factor(self, step: int, total: int) -> float:
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Step(Schedule):
    """gamma ** floor(step / size), with size a fraction of the run. yaml: `schedule=step`."""

    every: float = 1 / 3
    gamma: float = 0.1

    def factor(self, step: int, total: int) -> float:
        return self.gamma ** (step // max(round(self.every * total), 1))


@dataclass(frozen=True, kw_only=True)
class Multistep(Schedule):
    """gamma ** (number of milestones reached), milestones as fractions of the run. yaml: `schedule=multistep`."""

    milestones: Sequence[float] = (0.5, 0.75)
    gamma: float = 0.1

    def factor(self, step: int, total: int) -> float:
        return self.gamma ** sum(step >= round(milestone * total) for milestone in self.milestones)


@dataclass(frozen=True, kw_only=True)
class Exponential(Schedule):
    """final ** (step / total): a constant ratio per step, down to `final` at the end. yaml: `schedule=exponential`."""

    final: float = 0.01

    def factor(self, step: int, total: int) -> float:
        return self.final ** (step / total)


@dataclass(frozen=True, kw_only=True)
class Linear(Schedule):
    """A straight line from 1 to `final`. yaml: `schedule=linear`."""

    final: float = 0.0

    def factor(self, step: int, total: int) -> float:
        return 1 + (self.final - 1) * step / total


@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """final + (1 - final) (1 + cos(pi step / total)) / 2. yaml: `schedule=cosine`.

    Loshchilov & Hutter 2017, SGDR, without the restarts.
    """

    final: float = 0.0

    def factor(self, step: int, total: int) -> float:
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * step / total)) / 2


@dataclass(frozen=True, kw_only=True)
class CosineRestarts(Schedule):
    """`cycles` half cosines from 1 to `final`, each `growth` times as long as the one before. yaml: `schedule=cosine_restarts`.

    Loshchilov & Hutter 2017, SGDR: Stochastic Gradient Descent with Warm Restarts. As torch's CosineAnnealingWarmRestarts, with
    a first cycle that makes the last one end with the run.
    """

    cycles: int = 3
    growth: float = 2.0
    final: float = 0.0

    def factor(self, step: int, total: int) -> float:
        lengths = [self.growth**cycle for cycle in range(self.cycles)]
        position = step / total * sum(lengths)
        for length in lengths[:-1]:
            # A cycle begins at a step: what rounding leaves of the one before is none of it.
            if position < length * (1 - 1e-9):
                return _anneal(1.0, self.final, position / length)
            position = max(position - length, 0.0)
        return _anneal(1.0, self.final, min(position / lengths[-1], 1.0))


@dataclass(frozen=True, kw_only=True)
class Polynomial(Schedule):
    """final + (1 - final) (1 - step / total) ** power. yaml: `schedule=polynomial`.

    The "poly" decay of Chen et al. 2018, DeepLab; with power 1 it is `linear`.
    """

    power: float = 2.0
    final: float = 0.0

    def factor(self, step: int, total: int) -> float:
        return self.final + (1 - self.final) * (1 - step / total) ** self.power


@dataclass(frozen=True, kw_only=True)
class Wsd(Schedule):
    """1, then over the last `decay` of the run down to `final`: warm-up, stable, decay. yaml: `schedule=wsd`.

    Hu et al. 2024, MiniCPM. With `shape=linear` along a straight line (a trapezoid: Zhai et al. 2022), with `shape=sqrt` as
    1 - sqrt(share of the decay that is done) (Hägele et al. 2024, Scaling Laws and Compute-Optimal Training Beyond Fixed
    Training Durations). The warm-up is `warmup_steps`, as everywhere.
    """

    decay: float = 0.2
    shape: Literal["linear", "sqrt"] = "linear"
    final: float = 0.0

    def factor(self, step: int, total: int) -> float:
        length = self.decay * total
        done = max(step - (total - length), 0.0) / length
        return 1 + (self.final - 1) * (math.sqrt(done) if self.shape == "sqrt" else done)


@dataclass(frozen=True, kw_only=True)
class Cyclic(Schedule):
    """`cycles` times from `low` to 1 and back along straight lines; each rises by gamma times the one before.

    yaml: `schedule=cyclic`. Smith 2017, Cyclical Learning Rates for Training Neural Networks: gamma 1 is "triangular", 0.5
    "triangular2", as torch's CyclicLR.
    """

    cycles: int = 4
    low: float = 0.1
    gamma: float = 1.0

    def factor(self, step: int, total: int) -> float:
        cycle, position = divmod(step * self.cycles, total)  # of whole numbers: exact
        height = 1 - abs(2 * position / total - 1)
        return self.low + (1 - self.low) * height * self.gamma**cycle


@dataclass(frozen=True, kw_only=True)
class OneCycle(Schedule):
    """Up to 1 and down again, both along a cosine (Smith & Topin 2019, Super-Convergence). yaml: `schedule=one_cycle`.

    From 1 / start_divisor to 1 over the first `rise` of the run, then to 1 / (start_divisor final_divisor) at its last
    step, as torch's OneCycleLR; the momentum is left alone.
    """

    rise: float = 0.3
    start_divisor: float = 25.0
    final_divisor: float = 1e4

    def factor(self, step: int, total: int) -> float:
        start = 1 / self.start_divisor
        end = start / self.final_divisor
        peak = self.rise * total - 1
        if step < peak:
            return _anneal(start, 1.0, step / peak)
        return _anneal(1.0, end, min((step - peak) / max(total - 1 - peak, 1), 1.0))


@dataclass(frozen=True, kw_only=True)
class InverseSqrt(Schedule):
    """sqrt(timescale / (step + timescale)), timescale in steps. yaml: `schedule=inverse_sqrt`.

    The decay of Vaswani et al. 2017, in the form of Zhai et al. 2022, Scaling Vision Transformers.
    """

    timescale: int = 100

    def factor(self, step: int, total: int) -> float:
        return math.sqrt(self.timescale / (step + self.timescale))


@dataclass(frozen=True, kw_only=True)
class Plateau(Schedule):
    """gamma ** (number of reductions): one after each `patience` + 1 epochs in a row without improvement.

    yaml: `schedule=plateau`. Judged on the objective after every epoch, as torch's ReduceLROnPlateau with an absolute
    threshold. With a warm-up the reductions apply to the warm-up factor too.
    """

    depends_on_results: ClassVar[bool] = True

    gamma: float = 0.1
    patience: int = 3
    min_delta: float = 0.0

    def __call__(self, step: int, total: int, history: Sequence[float] = ()) -> float:
        warm = min((step + 1) / (self.warmup_steps + 1), 1.0)
        return warm * self.gamma ** self.reductions(history)

    def reductions(self, history: Sequence[float]) -> int:
        waited, count = 0, 0
        for improved in improvements(history, min_delta=self.min_delta):
            waited = 0 if improved else waited + 1
            if waited > self.patience:
                waited, count = 0, count + 1
        return count


def _anneal(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
