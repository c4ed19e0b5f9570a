"""From a configuration to objects: which classes it may name, and what does not fit."""

import pytest

from conftest import SMALL, compose
from ockham import build
from ockham.errors import UserError


@pytest.mark.parametrize(
    ("overrides", "needed"),
    [
        (["optimizer._target_=torch.nn.Linear"], "Optimizer"),
        (["model._target_=ockham.data.Mnist5k"], "Module"),
        (["schedule._target_=torch.optim.lr_scheduler.StepLR"], "Schedule"),
        (["augment=shift", "augment._target_=ockham.models.MLP"], "Augment"),
        (["reg=l2", "reg.l2._target_=torch.nn.Linear"], "Regularizer"),
        (["data._target_=ockham.models.MLP"], "DataSet"),
        (["data._target_=ockham.data.Normalize"], "DataSet"),
    ],
)
def test_a_class_is_held_to_what_its_group_needs(overrides: list[str], needed: str) -> None:
    with pytest.raises(UserError, match=f"is not a {needed}"):
        build.run(compose(*SMALL, *overrides))


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["model.hidden=[100000000000]"], r"does not fit into memory: make it smaller, model.hidden=\[100000000000\]"),
        (["schedule.warmup_steps=28"], "schedule.warmup_steps=28 does not end before the run, which has 28 steps"),
        (["data.num_classes=9"], "data.num_classes=9, but the data have 10 classes"),
        (["cv=401", "fold=0"], "cv=401 is not possible: the smallest class has 400 images"),
    ],
)
def test_what_does_not_fit_is_named(overrides: list[str], reason: str) -> None:
    settings = [setting for setting in SMALL if setting.partition("=")[0] not in {o.partition("=")[0] for o in overrides}]
    with pytest.raises(UserError, match=reason):
        build.run(compose(*settings, *overrides))
