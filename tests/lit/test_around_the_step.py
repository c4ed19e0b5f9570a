"""Runs with regularizers around the step against loops written by hand, and averages against torch's."""

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from conftest import SMALL, compose
from ockham import build
from ockham.core.metrics import evaluate
from ockham.data.batches import order
from ockham.errors import UserError
from ockham.record.checkpoint import Checkpoint
from ockham.record.folder import RunFolder
from ockham.reg.noise import dropout
from ockham.rng import Streams
from ockham.run import Run

RunSmall = Callable[..., RunFolder]
DOUBLE = "trainer.precision=64-true"


def built(*overrides: str) -> Run:
    """A run in double precision that a loop by hand trains; its regularizers do nothing by themselves."""
    run = build.run(compose(*SMALL, DOUBLE, *overrides))
    run.model.double()
    run.normalize.for_model(torch.float64, run.memory_format, torch.device("cpu"))
    return run


def batches(run: Run) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(epoch from 0, images, classes) of each step."""
    train, settings = run.splits.train, run.settings
    for epoch in range(run.num_epochs):
        for batch in order(len(train), seed=settings.seed, epoch=epoch, shuffle=True).split(settings.batch_size):
            yield epoch, run.normalize(train.images[batch]), train.labels[batch]


def backward(model: nn.Module, x: Tensor, y: Tensor) -> list[Tensor]:
    model.zero_grad()
    F.cross_entropy(model(x), y).backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


def val_loss(model: nn.Module, run: Run) -> float:
    val = run.splits.val
    return evaluate(model, val.images, val.labels, run.normalize).loss


def last(folder: RunFolder) -> Checkpoint:
    return Checkpoint.load(folder.last_checkpoint)


def assert_weights(weights: dict[str, Tensor], model: nn.Module, *, relative: float = 1e-9) -> None:
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(weights[name], parameter.detach(), rtol=relative, atol=relative)


# -- averages ----------------------------------------------------------------------------------------------------------------


def test_ema_is_torchs_averaged_model(small_run: RunSmall) -> None:
    folder = small_run("reg=ema", "reg.ema.decay=0.9", DOUBLE)
    run = built()
    averaged = AveragedModel(run.model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    optimizer = torch.optim.Adam(run.model.parameters())
    for _, x, y in batches(run):
        backward(run.model, x, y)
        optimizer.step()
        averaged.update_parameters(run.model)
    assert_weights(last(folder).model, run.model)
    assert_weights(last(folder).averages, averaged.module)
    assert folder.epochs()[-1]["val/loss"] == pytest.approx(val_loss(averaged.module, run), rel=1e-9)


def swa_by_hand(run: Run, first_epoch: int) -> AveragedModel:
    """From the end of that epoch on, which counts from 1, with new statistics of batch norm."""
    averaged, optimizer = AveragedModel(run.model), torch.optim.Adam(run.model.parameters())
    steps = run.steps_per_epoch
    for number, (epoch, x, y) in enumerate(batches(run), start=1):
        backward(run.model, x, y)
        optimizer.step()
        if epoch + 1 >= first_epoch and number % steps == 0:
            averaged.update_parameters(run.model)
    parts = run.splits.train.images.split(run.settings.batch_size)
    update_bn((run.normalize(part) for part in parts), averaged)
    return averaged


@pytest.mark.parametrize("batch_norm", [False, True])
def test_swa_is_torchs_averaged_model_with_its_statistics(small_run: RunSmall, *, batch_norm: bool) -> None:
    """Epochs 2, 3 and 4 of 4; the statistics that training goes on with are those of the trained weights."""
    words = [f"model.batch_norm={str(batch_norm).lower()}", "objective=val/loss"]
    folder = small_run("reg=swa", "reg.swa.start=0.5", *words, DOUBLE)
    run = built(*words)
    averaged = swa_by_hand(run, first_epoch=2)
    assert folder.epochs()[-1]["val/loss"] == pytest.approx(val_loss(averaged, run), rel=1e-7)
    checkpoint, best = last(folder), Checkpoint.load(folder.best_checkpoint)
    for name, tensor in run.model.state_dict().items():
        torch.testing.assert_close(checkpoint.model[name], tensor, rtol=1e-7, atol=1e-9)
    assert folder.metrics()["best_epoch"] == 4
    for name, tensor in averaged.module.state_dict().items():
        torch.testing.assert_close(best.model[name], tensor, rtol=1e-7, atol=1e-9)
    if batch_norm:
        stale, new = checkpoint.model["hidden.0.norm.running_var"], best.model["hidden.0.norm.running_var"]
        assert not torch.allclose(stale, new, rtol=1e-2), "judging with the old statistics would be noticed"


def test_swa_judges_what_is_trained_until_it_starts(small_run: RunSmall) -> None:
    plain, swa = small_run(name="plain"), small_run("reg=swa", "reg.swa.start=0.5", name="swa")
    assert plain.epochs()[:2] == swa.epochs()[:2]
    assert plain.epochs()[2]["val/loss"] != swa.epochs()[2]["val/loss"]


def test_lookahead_is_algorithm_1_of_its_paper(small_run: RunSmall) -> None:
    """Under momentum, whose buffer goes on; 28 steps, of which the last is not one of the slow weights."""
    folder = small_run("optimizer=momentum", "reg=lookahead", "reg.lookahead.steps=5", "reg.lookahead.step_size=0.3", DOUBLE)
    run = built()
    optimizer = torch.optim.SGD(run.model.parameters(), lr=0.02, momentum=0.9)
    slow = [parameter.detach().clone() for parameter in run.model.parameters()]
    for number, (_, x, y) in enumerate(batches(run), start=1):
        backward(run.model, x, y)
        optimizer.step()
        if number % 5 == 0:
            with torch.no_grad():
                for phi, theta in zip(slow, run.model.parameters(), strict=True):
                    phi += 0.3 * (theta - phi)
                    theta.copy_(phi)
    assert_weights(last(folder).model, run.model)
    with torch.no_grad():
        for phi, theta in zip(slow, run.model.parameters(), strict=True):
            theta.copy_(phi)
    assert_weights(last(folder).averages, run.model)
    assert folder.epochs()[-1]["val/loss"] == pytest.approx(val_loss(run.model, run), rel=1e-9)


def test_two_averages_of_own_classes_are_refused() -> None:
    words = ["+reg.mine._target_=ockham.reg.EMA", "+reg.mine.decay=0.5", "+reg.other._target_=ockham.reg.Lookahead"]
    with pytest.raises(UserError, match="EMA and Lookahead each judge the run by an average"):
        build.run(compose(*SMALL, *words, "+reg.other.steps=2"))


# -- the gradient ------------------------------------------------------------------------------------------------------------


def sam_moves(weights: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
    """Foret et al. 2021, equation 2, with rho = 0.2."""
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    return [0.2 * gradient / norm for gradient in gradients]


def asam_moves(weights: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
    """Kwon et al. 2021 with the elementwise operator, rho = 0.2 and eta = 0.05."""
    sizes = [weight.abs() + 0.05 if weight.ndim > 1 else torch.ones_like(weight) for weight in weights]
    norm = torch.cat([(size * gradient).flatten() for size, gradient in zip(sizes, gradients, strict=True)]).norm()
    return [0.2 * size**2 * gradient / norm for size, gradient in zip(sizes, gradients, strict=True)]


@pytest.mark.parametrize(("option", "moves"), [("sam", sam_moves), ("asam", asam_moves)])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_sam_takes_the_gradient_where_the_loss_is_higher(
    small_run: RunSmall, option: str, moves: Callable[[list[Tensor], list[Tensor]], list[Tensor]], *, batch_norm: bool
) -> None:
    """Both passes with one mask of dropout, the penalty's gradient at the weights, and statistics of the first pass."""
    words = [f"model.batch_norm={str(batch_norm).lower()}", "optimizer=sgd"]
    settings = [f"reg=[dropout,l2,{option}]", "reg.l2.strength=0.01", f"reg.{option}.rho=0.2"]
    settings += ["reg.asam.eta=0.05"] if option == "asam" else []
    folder = small_run(*words, *settings, DOUBLE)
    run = built(*words)
    model = run.model
    optimizer, parameters = torch.optim.SGD(model.parameters(), lr=0.1), list(model.parameters())
    masks, streams = [torch.empty(0)], Streams(0)
    model.output.register_forward_pre_hook(lambda layer, inputs: (dropout(inputs[0], masks[0], 0.35),))
    for epoch, x, y in batches(run):
        if epoch != streams._epoch:
            streams.begin(epoch)
        masks[0] = streams.stream("Dropout/output").uniform_like(torch.empty(len(x), 16, dtype=torch.float64))
        moved = moves(parameters, backward(model, x, y))
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        with torch.no_grad():
            start = [parameter.clone() for parameter in parameters]
            for parameter, move in zip(parameters, moved, strict=True):
                parameter += move
        backward(model, x, y)
        with torch.no_grad():
            for parameter, before in zip(parameters, start, strict=True):
                parameter.copy_(before)
                parameter.grad += 0.02 * before if before.ndim > 1 else 0
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])
        optimizer.step()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(last(folder).model[name], tensor, rtol=1e-8, atol=1e-9)


def test_sam_counts_both_passes(small_run: RunSmall) -> None:
    plain, sam = small_run("optimizer=sgd", name="plain").metrics(), small_run("optimizer=sgd", "reg=sam", name="sam").metrics()
    assert sam["steps"] == plain["steps"]
    assert sam["samples"] == 2 * plain["samples"] == 2 * 4 * 200
    assert sam["flops"] == 2 * plain["flops"]


def test_sam_in_parts_is_sam_of_the_larger_batch(small_run: RunSmall) -> None:
    settings = ["reg=[asam,l2]", DOUBLE]
    parts = small_run(*settings, "data.batch_size=16", "trainer.accumulate_grad_batches=3", name="parts")
    whole = small_run(*settings, "data.batch_size=48", name="whole")
    for name, tensor in last(whole).model.items():
        torch.testing.assert_close(last(parts).model[name], tensor, rtol=1e-9, atol=1e-11)


def test_gradients_are_penalized_then_centred_then_clipped_then_disturbed(small_run: RunSmall) -> None:
    """Yong et al. 2020 on weights, Neelakantan et al. 2015 on all parameters, t from 0."""
    settings = ["reg=[gradient_centralization,gradient_noise,l2]", "reg.l2.strength=0.5", "reg.gradient_noise.eta=1e-4"]
    folder = small_run("optimizer=sgd", *settings, "trainer.gradient_clip_val=0.1", DOUBLE)
    run = built()
    optimizer, streams = torch.optim.SGD(run.model.parameters(), lr=0.1), Streams(0)
    for t, (epoch, x, y) in enumerate(batches(run)):
        if epoch != streams._epoch:
            streams.begin(epoch)
        backward(run.model, x, y)
        with torch.no_grad():
            for parameter in run.model.parameters():
                if parameter.ndim > 1:
                    parameter.grad += 2 * 0.5 * parameter
                    parameter.grad -= parameter.grad.mean(dim=1, keepdim=True)
            torch.nn.utils.clip_grad_norm_(run.model.parameters(), 0.1)
            for name, parameter in run.model.named_parameters():
                noise = streams.stream(f"GradientNoise/{name}").normal_like(parameter)
                parameter.grad += (1e-4 / (1 + t) ** 0.55) ** 0.5 * noise
        optimizer.step()
    assert_weights(last(folder).model, run.model)
