"""A whole run against loops written by hand, other optimizers, scikit-learn, and itself on two devices."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from cases import CASES
from conftest import SMALL, compose, make_spec
from ockham import build
from ockham.core.metrics import evaluate
from ockham.data.batches import order
from ockham.execute import execute
from ockham.record.checkpoint import Checkpoint
from ockham.record.folder import FINAL_METRICS, RunFolder
from ockham.run import Run

RunSmall = Callable[..., RunFolder]
DOUBLE = "trainer.precision=64-true"


def weights_of(folder: RunFolder) -> dict[str, Tensor]:
    return Checkpoint.load(folder.last_checkpoint).model


def assert_same_weights(first: RunFolder, second: RunFolder, *, relative: float) -> None:
    for (name, one), (other_name, other) in zip(weights_of(first).items(), weights_of(second).items(), strict=True):
        assert name == other_name
        torch.testing.assert_close(one, other, rtol=relative, atol=relative * 1e-2)


def differ(first: RunFolder, second: RunFolder) -> bool:
    pairs = zip(weights_of(first).values(), weights_of(second).values(), strict=True)
    return any(not torch.allclose(one, other, rtol=1e-4) for one, other in pairs)


def one_hot_error(logits: Tensor, labels: Tensor) -> Tensor:
    return F.mse_loss(logits, F.one_hot(labels, 10).to(logits.dtype))


def by_hand(run: Run, optimizer: torch.optim.Optimizer, loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy) -> None:
    """The loop that a careful user would write: batches in the run's order, a loss, a step."""
    train, settings = run.splits.train, run.settings
    for epoch in range(run.num_epochs):
        for batch in order(len(train), seed=settings.seed, epoch=epoch, shuffle=True).split(settings.batch_size):
            optimizer.zero_grad()
            loss(run.model(run.normalize(train.images[batch])), train.labels[batch]).backward()
            optimizer.step()


def test_a_run_is_the_loop_written_by_hand(small_run: RunSmall) -> None:
    folder = small_run("optimizer=adam", "model.hidden=[16,8]")
    run = build.run(compose(*SMALL, "model.hidden=[16,8]"))
    by_hand(run, torch.optim.Adam(run.model.parameters(), lr=1e-3))
    for name, weight in run.model.state_dict().items():
        torch.testing.assert_close(weights_of(folder)[name], weight, rtol=1e-4, atol=1e-6)
    val = run.splits.val
    loss, acc = evaluate(run.model, val.images, val.labels, run.normalize)
    last = folder.epochs()[-1]
    assert last["val/loss"] == pytest.approx(loss, rel=1e-5)
    assert last["val/acc"] == pytest.approx(acc, abs=1e-9)


def test_mse_is_the_loop_written_by_hand(small_run: RunSmall) -> None:
    folder = small_run("optimizer=adam", "loss=mse")
    run = build.run(compose(*SMALL))
    by_hand(run, torch.optim.Adam(run.model.parameters(), lr=1e-3), loss=one_hot_error)
    for name, weight in run.model.state_dict().items():
        torch.testing.assert_close(weights_of(folder)[name], weight, rtol=1e-4, atol=1e-6)
    val = run.splits.val
    expected = one_hot_error(run.model(run.normalize(val.images)), val.labels).item()
    assert folder.epochs()[-1]["val/loss"] == pytest.approx(expected, rel=1e-5)


def test_l2_is_torchs_weight_decay_under_sgd_and_not_under_adam(small_run: RunSmall) -> None:
    common = ["reg.l2.include_bias=true", "reg.l2.strength=0.05", DOUBLE]
    sgd = small_run("optimizer=sgd", "reg=l2", *common, name="sgd-l2")
    decayed = small_run("optimizer=sgd", "optimizer.weight_decay=0.1", DOUBLE, name="sgd-decay")
    assert_same_weights(sgd, decayed, relative=1e-12)
    adam = small_run("optimizer=adam", "reg=l2", *common, name="adam-l2")
    decoupled = small_run("optimizer=adamw", "optimizer.weight_decay=0.1", DOUBLE, name="adamw")
    assert differ(adam, decoupled)


def test_weight_decay_makes_adam_adamw(small_run: RunSmall) -> None:
    settings = ["reg=weight_decay", "reg.weight_decay.strength=0.3", "reg.weight_decay.include_bias=true", DOUBLE]
    adam = small_run("optimizer=adam", *settings, name="adam")
    adamw = small_run("optimizer=adamw", "optimizer.weight_decay=0.3", DOUBLE, name="adamw")
    assert_same_weights(adam, adamw, relative=1e-12)


def test_accumulation_is_a_larger_batch(small_run: RunSmall) -> None:
    settings = ["reg=[l2,confidence_penalty]", DOUBLE]
    parts = small_run(*settings, "data.batch_size=16", "trainer.accumulate_grad_batches=3", name="parts")
    whole = small_run(*settings, "data.batch_size=48", name="whole")
    assert_same_weights(parts, whole, relative=1e-9)
    assert parts.metrics()["steps"] == whole.metrics()["steps"] == 4 * math.ceil(200 / 48)


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_clipping_is_torchs(small_run: RunSmall, algorithm: str) -> None:
    limit = 0.05
    folder = small_run("optimizer=sgd", f"trainer.gradient_clip_val={limit}", f"trainer.gradient_clip_algorithm={algorithm}")
    run = build.run(compose(*SMALL))
    clip = {"norm": torch.nn.utils.clip_grad_norm_, "value": torch.nn.utils.clip_grad_value_}[algorithm]

    class Clipped(torch.optim.SGD):
        def step(self, closure: None = None) -> None:
            clip(run.model.parameters(), limit)
            super().step(closure)

    by_hand(run, Clipped(run.model.parameters(), lr=0.1))
    for name, weight in run.model.state_dict().items():
        torch.testing.assert_close(weights_of(folder)[name], weight, rtol=1e-4, atol=1e-6)


def test_mixed_precision_trains_nearly_as_single_precision(small_run: RunSmall) -> None:
    full, mixed = small_run(name="full"), small_run("trainer.precision=bf16-mixed", name="mixed")
    assert next(iter(weights_of(mixed).values())).dtype == torch.float32
    assert differ(full, mixed)
    assert mixed.epochs()[-1]["val/loss"] == pytest.approx(full.epochs()[-1]["val/loss"], rel=0.02)


def test_softmax_regression_with_l2_is_scikit_learns(tmp_path: Path) -> None:
    strength, samples = 0.01, 200
    spec = make_spec(
        tmp_path / "run",
        *("model=linear", "optimizer=lbfgs", "reg=l2", f"reg.l2.strength={strength}", f"data.train_samples={samples}"),
        *(
            "schedule=constant",
            "trainer.max_epochs=30",
            "optimizer.max_iter=100",
            "+optimizer.tolerance_change=0",
            "+optimizer.tolerance_grad=1e-10",
            "optimizer.history_size=100",
            "logger=csv",
            DOUBLE,
        ),
    )
    execute(spec)
    splits = build.splits_of(spec.config)
    torch.set_default_dtype(torch.float64)
    normalize = build.Normalize.fit(splits.train.images, (1, 28, 28))
    torch.set_default_dtype(torch.float32)
    normalize.for_model(torch.float64, torch.contiguous_format, torch.device("cpu"))
    x, test = (normalize(split.images).flatten(1).numpy() for split in (splits.train, splits.test))
    # scikit-learn minimises C * (sum of losses) + 1/2 ||w||^2; ours is (mean of losses) + strength ||w||^2.
    reference = LogisticRegression(C=1 / (2 * strength * samples), solver="newton-cg", tol=1e-9, max_iter=1000).fit(
        x, splits.train.labels
    )
    last = weights_of(spec.folder)
    logits = test @ last["output.weight"].numpy().T + last["output.bias"].numpy()
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, reference.predict_proba(test), atol=2e-4)
    np.testing.assert_allclose(last["output.weight"].numpy(), reference.coef_, atol=2e-4)


def test_gradient_descent_does_not_depend_on_the_seeds_order(small_run: RunSmall) -> None:
    runs = [build.run(compose("optimizer=gd", f"seed={seed}")) for seed in (0, 1)]
    assert [e.steps_per_epoch for e in runs] == [1, 1]
    assert not any(e.settings.shuffle for e in runs)
    folder = small_run("optimizer=gd", "optimizer.lr=0.01", "trainer.max_epochs=8", "data.batch_size=full")
    losses = [row["train/objective"] for row in folder.epochs()]
    assert losses == sorted(losses, reverse=True)  # a step of gradient descent goes down


def test_lbfgs_beats_gradient_descent(small_run: RunSmall) -> None:
    final = {
        option: small_run(f"optimizer={option}", "trainer.max_epochs=6", "data.batch_size=full", name=option).epochs()[-1]
        for option in ("gd", "lbfgs")
    }
    assert final["lbfgs"]["train/objective"] < 0.1 * final["gd"]["train/objective"]


@pytest.mark.parametrize(
    ("group", "option"),
    [(group, option) for group in ("augment", "model", "schedule") for option in CASES[group]],
)
def test_every_option_trains(tmp_path: Path, group: str, option: str) -> None:
    # model.hidden of SMALL belongs to the mlp alone.
    base = [override for override in SMALL if group != "model" or not override.startswith("model.")]
    spec = make_spec(tmp_path / "run", *base, f"{group}={option}", *CASES[group][option])
    execute(spec)
    assert tuple(spec.folder.metrics()) == FINAL_METRICS
    rows = spec.folder.epochs()
    assert rows[-1]["train/objective"] < rows[0]["train/objective"]


def test_the_schedule_sets_the_learning_rate(small_run: RunSmall) -> None:
    rows = small_run("schedule=linear", "optimizer.lr=0.01", "data.batch_size=50").epochs()
    # lr is that of an epoch's last step: steps 3, 7, 11 and 15 of 16.
    assert [row["lr"] for row in rows] == pytest.approx([0.01 * (1 - step / 16) for step in (3, 7, 11, 15)])


def test_max_steps_ends_within_an_epoch(small_run: RunSmall) -> None:
    folder = small_run("trainer.max_steps=10", "data.batch_size=50")
    assert [row["step"] for row in folder.epochs()] == [4, 8, 10]
    assert folder.metrics()["steps"] == 10


def test_early_stopping_ends_the_run_and_the_best_epoch_is_judged(small_run: RunSmall) -> None:
    folder = small_run("reg=early_stopping", "reg.early_stopping.patience=2", "optimizer.lr=0.05", "trainer.max_epochs=40")
    metrics, rows = folder.metrics(), folder.epochs()
    assert metrics["last_epoch"] == len(rows) < 40
    best = max(range(len(rows)), key=lambda epoch: (rows[epoch]["val/acc"], -rows[epoch]["val/loss"], -epoch))
    assert metrics["best_epoch"] == best + 1
    assert metrics["objective"] == metrics["val/acc"] == rows[best]["val/acc"]
    assert metrics["val/loss"] == pytest.approx(rows[best]["val/loss"], rel=1e-12)


def test_the_objective_can_be_the_loss(small_run: RunSmall) -> None:
    folder = small_run("objective=val/loss", "optimizer.lr=0.02", "trainer.max_epochs=8")
    rows = folder.epochs()
    assert folder.metrics()["objective"] == min(row["val/loss"] for row in rows)


def test_l1_leaves_exact_zeros_and_its_subgradient_none(small_run: RunSmall) -> None:
    zeros = {
        method: small_run(
            "optimizer=sgd", "reg=l1", "reg.l1.strength=0.01", f"reg.l1.method={method}", "trainer.max_epochs=20", name=method
        )
        for method in ("proximal", "subgradient")
    }
    assert zeros["proximal"].epochs()[-1]["zero_fraction"] > 0.1
    assert zeros["subgradient"].epochs()[-1]["zero_fraction"] == 0


@pytest.mark.parametrize("reg", ["l2,confidence_penalty", "ema,gradient_noise,l2,sam"])
def test_two_devices_train_as_one(small_run: RunSmall, reg: str) -> None:
    """161 images in steps of 96: of the last, 65, one device has 33 in two parts, the other 32 in one."""
    parts = ["data.train_samples=161", "trainer.accumulate_grad_batches=3"]
    measured = ["trainer.evaluate_every=3", "measure=[gradient_norm,update_norm]"]  # also within the second epoch
    settings = [f"reg=[{reg}]", *parts, *measured, "trainer.max_epochs=2", DOUBLE]
    one = small_run(*settings, name="one")
    two = small_run(*settings, "trainer=ddp", "trainer.accelerator=cpu", "trainer.max_epochs=2", name="two")
    assert_same_weights(one, two, relative=1e-9)
    assert [row["step"] for row in one.epochs()] == [3, 4]
    for row, other_row in zip(one.epochs(), two.epochs(), strict=True):
        assert row == pytest.approx(other_row, rel=1e-9)
    assert two.status()["state"] == "finished"


def test_divergence_is_a_result_with_its_epoch(tmp_path: Path) -> None:
    spec = make_spec(tmp_path / "run", *SMALL, "optimizer=sgd", "optimizer.lr=1e30")
    assert math.isnan(execute(spec))
    status = spec.folder.status()
    assert status["state"] == "diverged"
    assert "after epoch 1" in status["error"]["message"]
    assert len(spec.folder.epochs()) == 1
    assert not spec.folder.metrics()


def test_two_regularizers_with_one_seed_see_the_same_batches(small_run: RunSmall) -> None:
    plain, weak = small_run(name="plain"), small_run("reg=l2", "reg.l2.strength=1e-12", name="weak")
    assert_same_weights(plain, weak, relative=1e-4)
