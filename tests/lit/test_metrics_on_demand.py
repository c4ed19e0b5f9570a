"""Lightning is imported without torchmetrics' metrics, which are there when they are asked for."""

import subprocess
import sys
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2] / "src"

CODE = """
import sys
import ockham.lit
import torchmetrics
heavy = {"torchvision", "scipy.signal", "torchmetrics.functional"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
from pytorch_lightning.trainer.connectors.logger_connector import result
assert result.Metric is torchmetrics.Metric is torchmetrics.metric.Metric
assert not heavy & set(sys.modules), heavy & set(sys.modules)

import torch
from torchmetrics import Accuracy, MetricCollection
from torchmetrics.functional import accuracy
guess, truth = torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 2, 0])
assert float(accuracy(guess, truth, task="multiclass", num_classes=3)) == 0.75
metric = Accuracy(task="multiclass", num_classes=3, average="micro")
assert float(metric(guess, truth)) == 0.75
assert isinstance(metric, result.Metric) and MetricCollection is torchmetrics.collections.MetricCollection
assert heavy <= set(sys.modules)
assert not hasattr(torchmetrics, "no_such_name")
"""


def run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], cwd=SOURCES, check=True)


def test_lightning_comes_without_the_metrics_and_they_come_when_asked_for() -> None:
    run(CODE)


def test_torchmetrics_that_is_there_already_stays() -> None:
    code = "import torchmetrics; before = vars(torchmetrics).copy(); import ockham.lit; assert vars(torchmetrics) == before"
    run(code)
