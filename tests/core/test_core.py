"""The pure functions that every way of running shares."""

import math

import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from torch import nn

from ockham.core.metrics import evaluate, evaluation_batch, logits_of, scores
from ockham.core.objective import cross_entropy, squared_error
from ockham.core.parameters import named_parameters, weight_norm, weights, zero_fraction
from ockham.core.selection import Criterion, best_position, improvements


def test_cross_entropy_is_torchs_mean_and_parts_add_up() -> None:
    logits, target = torch.randn(10, 4, dtype=torch.float64), torch.randint(4, (10,))
    whole = cross_entropy(logits, target, weight=1 / 10)
    parts = sum(cross_entropy(logits[part], target[part], weight=1 / 10) for part in (slice(0, 7), slice(7, 10)))
    expected = nn.functional.cross_entropy(logits, target)
    torch.testing.assert_close(whole, expected)
    torch.testing.assert_close(parts, expected)
    probabilities = nn.functional.one_hot(target, 4).double()
    torch.testing.assert_close(cross_entropy(logits, probabilities, weight=1 / 10), expected)


def test_squared_error_is_torchs_on_one_hot_classes_and_parts_add_up() -> None:
    logits, target = torch.randn(10, 4, dtype=torch.float64, requires_grad=True), torch.randint(4, (10,))
    probabilities = nn.functional.one_hot(target, 4).double()
    expected = nn.functional.mse_loss(logits, probabilities)
    (gradient,) = torch.autograd.grad(expected, logits)
    parts = sum(squared_error(logits[part], target[part], weight=1 / 10) for part in (slice(0, 7), slice(7, 10)))
    for actual in (squared_error(logits, target, weight=1 / 10), squared_error(logits, probabilities, weight=1 / 10), parts):
        torch.testing.assert_close(actual, expected)
        torch.testing.assert_close(torch.autograd.grad(actual, logits)[0], gradient)
    measured = scores(logits.detach(), target, loss="mse")
    assert measured.loss == pytest.approx(expected.item(), rel=1e-12)
    assert measured.acc == float((logits.argmax(1) == target).double().mean())


def test_evaluate_agrees_with_scikit_learn_in_evaluation_mode() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)).double()
    images = torch.randint(0, 256, (1024 + 7, 1, 2, 2), dtype=torch.uint8)
    labels = torch.randint(3, (len(images),))
    model.train()
    loss, acc = evaluate(model, images, labels, lambda x: x.double() / 255)
    assert model.training
    model.eval()
    probabilities = model(images.double() / 255).softmax(dim=1).detach().numpy()
    assert loss == pytest.approx(log_loss(labels, probabilities, labels=[0, 1, 2]), rel=1e-12)
    assert acc == accuracy_score(labels, probabilities.argmax(axis=1))


def test_a_batch_of_evaluation_fits_the_cache_and_changes_no_logits() -> None:
    image = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    convolutional = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.Flatten(), nn.Linear(16 * 256, 10))
    # 16 channels of 16 x 16 numbers of 4 bytes are 16 KiB an image, of which 256 are 4 MiB.
    assert evaluation_batch(convolutional, image) == 256
    assert evaluation_batch(nn.Conv2d(3, 16, 3, stride=2), image) == 1024
    assert evaluation_batch(nn.Conv2d(3, 64, 3), torch.zeros(1, 3, 224, 224)) == 16
    assert evaluation_batch(nn.Linear(768, 10), image) == 1024
    assert evaluation_batch(convolutional.double(), image) == 128
    images = torch.randint(0, 256, (300, 3, 16, 16), dtype=torch.uint8)
    logits = logits_of(convolutional, images, lambda x: x.double() / 255)
    torch.testing.assert_close(logits, convolutional(images.double() / 255).detach())


def test_weights_are_matrices_and_kernels() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3))
    parameters = named_parameters(model)
    assert [name for name, _ in weights(parameters)] == ["0.weight", "3.weight"]
    assert [name for name, _ in weights(parameters, include_bias=True)] == [name for name, _ in model.named_parameters()]
    with torch.no_grad():
        model[0].weight.zero_()
        model[3].weight.fill_(2.0)
    assert weight_norm(parameters) == pytest.approx(math.sqrt(6 * 4))
    assert zero_fraction(parameters) == pytest.approx(18 / 24)


def test_best_epoch_breaks_ties_by_loss_and_then_takes_the_earlier() -> None:
    history = [Criterion(0.9, 0.4), Criterion(0.95, 0.3), Criterion(0.95, 0.2), Criterion(0.95, 0.2), Criterion(math.nan, 0.1)]
    assert best_position(history, maximise=True) == 2
    assert best_position([Criterion(0.4, 0.4), Criterion(0.3, 0.3), Criterion(0.35, 0.35)], maximise=False) == 1


def test_improvements_compare_with_the_best_so_far() -> None:
    assert improvements([3.0, 2.0, 2.5, 1.95, 1.0], min_delta=0.1) == [True, True, False, False, True]
    assert improvements([math.inf, 1.0], min_delta=0.0) == [False, True]
