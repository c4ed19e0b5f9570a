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


#: A torchmetrics without the classes where they are looked for, and the module alone, since Lightning would not take it.
OF_ANOTHER_VERSION = """
import sys
sys.path.insert(0, sys.argv[1])
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("metrics_on_demand", "ockham/lit/metrics_on_demand.py")
module = module_from_spec(spec)
spec.loader.exec_module(module)
module.defer_metrics()
assert not [name for name in sys.modules if name.startswith("torchmetrics")]
import torchmetrics
assert torchmetrics.is_whole
"""


def ends(code: str, *arguments: str) -> tuple[int, str]:
    """Exit code and errors of a process with these assertions."""
    process = subprocess.run([sys.executable, "-c", code, *arguments], cwd=SOURCES, stderr=subprocess.PIPE, text=True)
    return process.returncode, process.stderr


def test_lightning_comes_without_the_metrics_and_they_come_when_asked_for() -> None:
    assert ends(CODE) == (0, "")


def test_a_torchmetrics_that_is_put_together_otherwise_is_imported_as_it_is(tmp_path: Path) -> None:
    package = tmp_path / "torchmetrics"
    package.mkdir()
    (package / "__init__.py").write_text("is_whole = True\n")
    (package / "utilities.py").write_text("")
    assert ends(OF_ANOTHER_VERSION, str(tmp_path)) == (0, "")


def test_torchmetrics_that_is_there_already_stays() -> None:
    code = "import torchmetrics; before = vars(torchmetrics).copy(); import ockham.lit; assert vars(torchmetrics) == before"
    assert ends(code) == (0, "")
