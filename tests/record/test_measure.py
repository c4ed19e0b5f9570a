"""What `measure` adds to a run: values against dense algebra and torchmetrics, and the same however the run is executed."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from sklearn.metrics import log_loss
from torch import Tensor
from torch.func import functional_call, grad, hessian

import ockham.lit
from comparison import assert_same_run
from conftest import SMALL, compose, make_spec
from ockham import build
from ockham.core.measures import MEASURES, measured_columns, measured_finally
from ockham.core.metrics import calibration
from ockham.core.parameters import named_parameters
from ockham.execute import RunSpec, execute, execute_group
from ockham.fused import group
from ockham.lit import fit
from ockham.record.checkpoint import Checkpoint
from ockham.record.folder import EPOCH_SCALARS, FINAL_METRICS
from ockham.record.measure import SmoothObjective
from ockham.run import Run

ALL = f"measure=[{','.join(reversed(MEASURES))}]"
DOUBLE = "trainer.precision=64-true"

#: A net of 310 parameters, whose Hessian is written down in a moment.
TINY = ("data=digits", "data.train_samples=120", "model.hidden=[4]", "model.activation=tanh")


def built(*overrides: str) -> Run:
    run = build.run(compose(*TINY, *overrides))
    run.model.double()
    run.normalize.for_model(torch.float64, run.memory_format, torch.device("cpu"))
    return run


def cross_entropy(logits: Tensor, labels: Tensor, weights: list[Tensor]) -> Tensor:
    return F.cross_entropy(logits, labels)


def squared_error(logits: Tensor, labels: Tensor, weights: list[Tensor]) -> Tensor:
    return F.mse_loss(logits, F.one_hot(labels, 10).double())


def penalized(logits: Tensor, labels: Tensor, weights: list[Tensor]) -> Tensor:
    entropy = -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()
    return F.cross_entropy(logits, labels, label_smoothing=0.1) + 0.05 * sum(w.square().sum() for w in weights) - 0.3 * entropy


OBJECTIVES = {
    "": cross_entropy,
    "loss=mse": squared_error,
    "reg=[dropout,weight_decay,l1,spectral_norm]": cross_entropy,
    "model.batch_norm=true model.hidden=[4,3] reg=[dropconnect,input_noise]": cross_entropy,
    "reg=[l2,label_smoothing,confidence_penalty] reg.l2.strength=0.05 reg.confidence_penalty.strength=0.3": penalized,
}


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # of the forward mode in torch.func.hessian
@pytest.mark.parametrize("overrides", OBJECTIVES, ids=lambda overrides: overrides or "plain")
def test_sharpness_and_gradient_are_those_of_the_dense_algebra(overrides: str) -> None:
    run = built(*overrides.split())
    train, names = run.splits.train, [name for name, _ in named_parameters(run.model)]
    shapes = [parameter.shape for _, parameter in named_parameters(run.model)]
    x = run.normalize(train.images)
    for module in run.model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    run.model.eval()

    def objective(flat: Tensor) -> Tensor:
        pieces = flat.split([shape.numel() for shape in shapes])
        parameters = {name: piece.view(shape) for name, piece, shape in zip(names, pieces, shapes, strict=True)}
        matrices = [parameter for parameter in parameters.values() if parameter.ndim == 2]
        return OBJECTIVES[overrides](functional_call(run.model, parameters, (x,)), train.labels, matrices)

    flat = torch.cat([parameter.detach().flatten() for _, parameter in named_parameters(run.model)])
    expected, gradient = float(torch.linalg.eigvalsh(hessian(objective)(flat))[-1]), grad(objective)(flat)
    run.model.train()
    measured = SmoothObjective(run, train, train.labels, run.normalize)
    assert measured.sharpness(step=7) == pytest.approx(expected, rel=1e-6)
    assert measured.sharpness(step=8) == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(measured.gradient(), gradient, rtol=1e-9, atol=1e-12)
    assert run.model.training


def test_parts_of_the_sample_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    run = built("reg=l2")
    whole = SmoothObjective(run, run.splits.train, run.splits.train.labels, run.normalize)
    vector = torch.randn(310, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = whole.gradient(), whole.hessian_product(vector)
    monkeypatch.setattr("ockham.record.measure.evaluation_batch", lambda model, image: 50)
    parts = SmoothObjective(run, run.splits.train, run.splits.train.labels, run.normalize)
    torch.testing.assert_close((parts.gradient(), parts.hessian_product(vector)), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("model", ["cnn", "lenet", "resnet"])
def test_convolutional_nets_have_a_hessian(model: str) -> None:
    """Against the change of the gradient along a line."""
    run = build.run(compose(f"model={model}", "data.train_samples=20", *(["model.activation=silu"] if model == "cnn" else [])))
    run.model.double()
    run.normalize.for_model(torch.float64, run.memory_format, torch.device("cpu"))
    train, parameters = run.splits.train, [parameter for _, parameter in named_parameters(run.model)]
    vector = torch.randn(run.num_parameters, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    vector /= vector.norm()
    product = SmoothObjective(run, train, train.labels, run.normalize).hessian_product(vector)
    gradients = []
    for distance in (1e-6, -2e-6):  # one step to one side, two back to the other
        with torch.no_grad():
            for parameter, piece in zip(parameters, vector.split([p.numel() for p in parameters]), strict=True):
                parameter += distance * piece.view_as(parameter)
        gradients.append(SmoothObjective(run, train, train.labels, run.normalize).gradient())
    torch.testing.assert_close(product, (gradients[0] - gradients[1]) / 2e-6, rtol=1e-3, atol=1e-4 * float(product.norm()))


def test_calibration_is_torchmetrics_and_scikit_learns() -> None:
    from torchmetrics.classification import MulticlassCalibrationError

    chance = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2000, 7, generator=chance, dtype=torch.float64)
    labels = torch.where(
        torch.rand(2000, generator=chance) < 0.6, logits.argmax(1), torch.randint(7, (2000,), generator=chance)
    )
    expected = MulticlassCalibrationError(num_classes=7, n_bins=15, norm="l1")(logits.softmax(1), labels)
    measured = calibration(logits, labels)
    assert measured.ece == pytest.approx(float(expected), rel=1e-6)
    assert measured.nll == pytest.approx(log_loss(labels, logits.softmax(1).numpy()), rel=1e-12)
    certain = torch.tensor([[100.0, 0.0], [100.0, 0.0], [0.0, 100.0], [0.0, 100.0]])
    assert calibration(certain, torch.tensor([0, 0, 1, 0])).ece == 0.25, "a confidence of 1 lies in the last bin"


def weights_after(epochs: int, folder: Path, *overrides: str) -> list[Tensor]:
    spec = make_spec(folder / str(epochs), *SMALL, DOUBLE, f"trainer.max_epochs={epochs}", *overrides)
    execute(spec)
    return list(Checkpoint.load(spec.folder.last_checkpoint).model.values())


def distance(ones: list[Tensor], others: list[Tensor]) -> float:
    return math.sqrt(
        sum(float((one.double() - other.double()).square().sum()) for one, other in zip(ones, others, strict=True))
    )


def test_columns_are_of_the_weights_after_the_epoch_and_metrics_json_of_the_selected_ones(tmp_path: Path) -> None:
    spec = make_spec(tmp_path / "run", *SMALL, DOUBLE, ALL, "optimizer.lr=0.05", "objective=val/loss")
    execute(spec)
    rows, metrics = spec.folder.epochs(), spec.folder.metrics()
    assert tuple(rows[0]) == ("epoch", "step", *EPOCH_SCALARS, *measured_columns(MEASURES))
    assert tuple(metrics) == (*FINAL_METRICS, *measured_finally(MEASURES))
    initial = [p.detach() for _, p in named_parameters(build.run(compose(*SMALL)).model)]
    path = [initial, *(weights_after(epochs, tmp_path, "optimizer.lr=0.05") for epochs in (1, 2))]
    for before, after, row in zip(path[:-1], path[1:], rows[:2], strict=True):
        assert row["update_norm"] == pytest.approx(distance(after, before), rel=1e-9)
        assert row["weight_distance"] == pytest.approx(distance(after, initial), rel=1e-9)
        assert row["val/nll"] == pytest.approx(row["val/loss"], rel=1e-12)
    selected = rows[int(metrics["best_epoch"]) - 1]
    assert selected != rows[-1], "the last epoch is not the best"
    assert {name: metrics[name] for name in measured_columns(MEASURES)} == {n: selected[n] for n in measured_columns(MEASURES)}
    run = build.run(spec.config)
    model = run.model.double().eval()
    model.load_state_dict(Checkpoint.load(spec.folder.best_checkpoint).model)
    run.normalize.for_model(torch.float64, run.memory_format, torch.device("cpu"))
    assert (metrics["val/ece"], metrics["test/ece"]) == pytest.approx(
        [calibration(model(run.normalize(s.images)).detach(), s.labels).ece for s in (run.splits.val, run.splits.test)],
        rel=1e-9,
    )


MEMBERS = [
    ["optimizer=adam", "reg=[dropout,l2]"],
    ["optimizer=momentum", "reg=spectral_norm", "seed=1"],
    ["optimizer=schedule_free_sgd", "optimizer.lr=0.1", "reg=[dropconnect,label_smoothing]"],
    ["optimizer=asgd", "optimizer.t0=3", "seed=2"],
    ["optimizer=sgd", "reg=early_stopping", "reg.early_stopping.patience=1", "optimizer.lr=1e-9"],
    ["optimizer=sgd", "optimizer.lr=1e30"],
]


def specs_of(folder: Path, *overrides: str) -> list[RunSpec]:
    return [make_spec(folder / str(n), *SMALL, ALL, *overrides, *member) for n, member in enumerate(MEMBERS)]


def test_members_of_a_group_measure_what_single_runs_do(tmp_path: Path) -> None:
    alone, fused = specs_of(tmp_path / "alone", DOUBLE, "loss=mse"), specs_of(tmp_path / "fused", DOUBLE, "loss=mse")
    for spec in alone:
        execute(spec)
    execute_group(fused, tmp_path / "group")
    for one, other in zip(alone, fused, strict=True):
        assert one.folder.state == other.folder.state
        assert len(one.folder.epochs()) == len(other.folder.epochs())
        for row, same in zip(one.folder.epochs(), other.folder.epochs(), strict=True):
            assert row == pytest.approx(same, rel=1e-6, abs=1e-9, nan_ok=True)
        assert one.folder.metrics() == pytest.approx(other.folder.metrics(), rel=1e-6, abs=1e-9)
    assert alone[-1].folder.state == "diverged"


class CrashAfter(pl.Callback):
    """Ends the process's work in the epoch after so many."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, index: int) -> None:
        if module.finished_epochs == self.epochs:
            raise MemoryError("crashed for the test")


@pytest.mark.parametrize("member", [0, 2, 3])
def test_a_continued_run_measures_what_an_uninterrupted_one_does(
    member: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ockham.record.ledger.SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    whole, broken = (make_spec(tmp_path / name, *SMALL, ALL, *MEMBERS[member]) for name in ("whole", "broken"))
    execute(whole)
    with monkeypatch.context() as crashing:
        crashing.setattr(ockham.lit, "fit", partial(fit, callbacks=[CrashAfter(2)]))
        with pytest.raises(MemoryError):
            execute(broken)
    execute(broken)
    assert_same_run(whole.folder, broken.folder, events=False)


def test_a_continued_group_measures_what_an_uninterrupted_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    whole, broken = specs_of(tmp_path / "whole"), specs_of(tmp_path / "broken")
    execute_group(whole, tmp_path / "whole-group")
    train_interval = group.Group._train_interval

    def crash_in_the_fourth(self: Any) -> None:
        if self.step == 21:
            raise MemoryError("crashed for the test")
        train_interval(self)

    with monkeypatch.context() as crashing:
        crashing.setattr(group.Group, "_train_interval", crash_in_the_fourth)
        with pytest.raises(MemoryError):
            execute_group(broken, tmp_path / "group")
    execute_group(broken, tmp_path / "group")
    for one, other in zip(whole, broken, strict=True):
        assert (one.folder.path / "metrics.csv").read_bytes() == (other.folder.path / "metrics.csv").read_bytes()
        if one.folder.state == "finished":
            assert_same_run(one.folder, other.folder, events=False)
