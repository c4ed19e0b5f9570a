"""Schedules against values written by hand and against torch.optim.lr_scheduler."""

import math

import pytest
import torch
from torch.optim import lr_scheduler

from ockham.schedules import (
    Constant,
    Cosine,
    CosineRestarts,
    Cyclic,
    Exponential,
    InverseSqrt,
    Linear,
    Multistep,
    OneCycle,
    Plateau,
    Polynomial,
    Schedule,
    Step,
    Wsd,
)

TOTAL = 30


def of_torch(make: object, steps: int = TOTAL) -> list[float]:
    """The factors that a scheduler of torch applies to a learning rate of 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    factors = []
    for _ in range(steps):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return factors


@pytest.mark.parametrize(
    ("schedule", "make"),
    [
        (Constant(), lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
        (Step(every=1 / 3, gamma=0.5), lambda o: lr_scheduler.StepLR(o, 10, 0.5)),
        (Multistep(milestones=[0.5, 0.75]), lambda o: lr_scheduler.MultiStepLR(o, [15, 22], 0.1)),
        (Exponential(final=0.01), lambda o: lr_scheduler.ExponentialLR(o, 0.01 ** (1 / TOTAL))),
        (Linear(final=0.1), lambda o: lr_scheduler.LinearLR(o, 1.0, 0.1, TOTAL)),
        (Cosine(final=0.2), lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL, eta_min=0.2)),
        (Polynomial(power=1.7), lambda o: lr_scheduler.PolynomialLR(o, TOTAL, power=1.7)),
        (
            CosineRestarts(cycles=2, growth=2, final=0.1),  # 10 and 20 steps
            lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 10, T_mult=2, eta_min=0.1),
        ),
        (CosineRestarts(cycles=3, growth=1), lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 10)),
        (CosineRestarts(cycles=1, final=0.2), lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL, eta_min=0.2)),
        (Cyclic(cycles=3, low=0.2), lambda o: lr_scheduler.CyclicLR(o, 0.2, 1.0, 5, cycle_momentum=False)),
        (
            Cyclic(cycles=3, low=0.2, gamma=0.5),
            lambda o: lr_scheduler.CyclicLR(o, 0.2, 1.0, 5, mode="triangular2", cycle_momentum=False),
        ),
        (
            Wsd(decay=0.4, final=0.1),
            lambda o: lr_scheduler.SequentialLR(
                o, [lr_scheduler.ConstantLR(o, 1.0), lr_scheduler.LinearLR(o, 1.0, 0.1, 12)], milestones=[18]
            ),
        ),
        (
            OneCycle(rise=0.3, start_divisor=10, final_divisor=100),
            lambda o: lr_scheduler.OneCycleLR(
                o, 1.0, total_steps=TOTAL + 1, pct_start=0.3, div_factor=10, final_div_factor=100, cycle_momentum=False
            ),
        ),
    ],
)
def test_factors_are_those_of_torch(schedule: Schedule, make: object) -> None:
    total = TOTAL + 1 if isinstance(schedule, OneCycle) else TOTAL  # torch's OneCycleLR refuses a step after its last
    expected = of_torch(make)
    assert [schedule(step, total) for step in range(TOTAL)] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (Constant(), {0: 1, 99: 1}),
        (Step(every=0.25, gamma=0.1), {0: 1, 24: 1, 25: 0.1, 50: 0.01, 99: 0.001}),
        (Multistep(milestones=[0.5, 0.9], gamma=0.2), {49: 1, 50: 0.2, 89: 0.2, 90: 0.04}),
        (Exponential(final=0.01), {0: 1, 50: 0.1, 100: 0.01}),
        (Linear(final=0.0), {0: 1, 25: 0.75, 100: 0}),
        (Cosine(final=0.0), {0: 1, 50: 0.5, 100: 0}),
        (InverseSqrt(timescale=100), {0: 1, 300: 0.5}),
        (OneCycle(rise=0.3), {0: 1 / 25, 29: 1, 99: 1 / 25 / 1e4}),
        (Polynomial(power=2, final=0.1), {0: 1, 50: 0.1 + 0.9 * 0.25, 100: 0.1}),
        (Wsd(decay=0.25), {0: 1, 75: 1, 80: 0.8, 99: 0.04, 100: 0}),
        (Wsd(decay=0.25, shape="sqrt", final=0.2), {75: 1, 79: 1 - 0.8 * 0.4, 91: 1 - 0.8 * 0.8, 100: 0.2}),
        (Wsd(decay=0.5, warmup_steps=20), {0: 1 / 21, 20: 1, 60: 1, 80: 0.5, 100: 0}),
        (Wsd(decay=1.0), {0: 1, 25: 0.75}),
        (CosineRestarts(cycles=4, growth=1), {0: 1, 25: 1, 50: 1, 75: 1, 100: 0}),
        (Cyclic(cycles=2, low=0.1, gamma=0.5), {0: 0.1, 25: 1, 50: 0.1, 75: 0.1 + 0.9 / 2}),
        (Linear(final=0.0, warmup_steps=4), {0: 0.2, 3: 0.8, 4: 1, 52: 0.5}),
        (Constant(warmup_steps=3), {0: 0.25, 1: 0.5, 2: 0.75, 3: 1}),
    ],
)
def test_factors_written_by_hand(schedule: Schedule, factors: dict[int, float]) -> None:
    assert {step: schedule(step, 100) for step in factors} == pytest.approx(factors, abs=1e-12)


def test_short_runs_do_not_divide_by_zero() -> None:
    schedules = [
        *(Step(), Multistep(), Exponential(), Linear(), Cosine(), OneCycle(), InverseSqrt(), Plateau()),
        *(CosineRestarts(), Polynomial(), Wsd(), Wsd(shape="sqrt"), Cyclic(low=0.0)),
    ]
    for schedule in schedules:
        for total in (1, 2, 3, 4):
            factors = [schedule(step, total) for step in range(total)]
            assert all(math.isfinite(factor) and 0 <= factor <= 1 for factor in factors), (schedule, total)
            assert schedule.__class__(warmup_steps=10)(0, total) == pytest.approx(1 / 11)


def test_plateau_reduces_as_torchs_does() -> None:
    values = [5.0, 4.0, 4.2, 4.1, 4.05, 3.0, 3.0, 3.1, 3.2, 3.3, 3.0, 2.9, 3.0, 3.0]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1, threshold=0.01, threshold_mode="abs")
    plateau = Plateau(gamma=0.5, patience=1, min_delta=0.01)
    expected, factors = [], []
    for epoch, value in enumerate(values, start=1):
        reference.step(value)
        expected.append(optimizer.param_groups[0]["lr"])
        factors.append(plateau(0, 1, values[:epoch]))
    assert factors == expected
    assert expected[-1] < 0.2
