"""Time a training step: a hand-written loop, stock Lightning, Ockham; and the start of a run. Prints tables, and JSON.

    python scripts/bench_step.py               all tables; about ten minutes on two cores
    python scripts/bench_step.py --device cuda the same on a GPU

All sides train the same model on random images of the same shape, in turn, `--rounds` times; a figure is the time of a
whole epoch after a first one, divided by its steps. Ockham has all its logging and its checkpoints on and measures train
and val after the epoch; stock Lightning logs the loss, and validates, as the usual template does. The start is the wall
time of whole processes.
"""

import argparse
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import hydra
import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms

from ockham.data import Normalize, Split, Splits
from ockham.lit import fit
from ockham.models import CNN, MLP
from ockham.optim.groups import make_optimizer
from ockham.record.cost import synchronize
from ockham.record.folder import RunFolder, versions
from ockham.record.ledger import Ledger, RunSpec, opened
from ockham.rng import Streams, global_seed
from ockham.run import Run, Settings
from ockham.schedules import Constant

ROOT = Path(__file__).resolve().parents[1]
BATCH = 128
LR = 1e-3


class Case:
    """A model and images of the shape that it takes; val has a ninth or an eleventh of train, as on CIFAR and MNIST."""

    def __init__(
        self, name: str, make_model: Callable[[], nn.Module], shape: tuple[int, int, int], num_train: int, num_val: int
    ) -> None:
        self.name, self.make_model, self.shape = name, make_model, shape
        generator = np.random.default_rng(0)
        train, val, test = (self._split(generator, count) for count in (num_train, num_val, 1000))
        self.splits = Splits(train=train, val=val, test=test, classes=tuple("0123456789"))
        self.normalize = Normalize.fit(self.splits.train.images, shape)

    def _split(self, generator: np.random.Generator, count: int) -> Split:
        images = generator.integers(0, 256, (count, *self.shape), dtype=np.uint8)
        return Split(torch.from_numpy(images), torch.from_numpy(generator.integers(0, 10, count)))

    @property
    def steps(self) -> int:
        return -(-len(self.splits.train) // BATCH)


def hand_written(case: Case, device: str) -> float:
    """Seconds of an epoch of the plainest loop over normalised images in memory."""
    os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)  # set by importing Lightning, it slows Adam down on a CPU
    model = case.make_model().to(memory_format=torch.channels_last).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=True)
    images, labels = case.normalize(case.splits.train.images).to(device), case.splits.train.labels.to(device)
    seconds = 0.0
    for _ in range(2):
        started = time.perf_counter()
        for batch in torch.randperm(len(labels), device=device).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
        synchronize(torch.device(device))
        seconds = time.perf_counter() - started
    return seconds


class StockModule(pl.LightningModule):
    """The usual template's module."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        loss = F.cross_entropy(self.model(batch[0]), batch[1])
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        self.log("val/loss", F.cross_entropy(self.model(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.model.parameters(), lr=LR)


class StockDataset(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Images through torchvision's transforms, one by one, as torchvision's own data sets do it."""

    def __init__(self, split: Split, normalize: Normalize) -> None:
        self.images = split.images.permute(0, 2, 3, 1).squeeze(-1).numpy()
        self.labels = split.labels.tolist()
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(normalize.mean, normalize.std)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


class EpochClock(pl.Callback):
    """The seconds of the last epoch, with its validation, until the device has done its work."""

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        synchronize(module.device)
        self.seconds = time.perf_counter() - self.started


def stock(case: Case, device: str, workers: int) -> float:
    """Seconds of an epoch of Lightning with torchvision's transforms and DataLoader."""
    train, val = (
        DataLoader(
            StockDataset(split, case.normalize), BATCH, shuffle=shuffle, num_workers=workers, persistent_workers=workers > 0
        )
        for split, shuffle in ((case.splits.train, True), (case.splits.val, False))
    )
    clock = EpochClock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator=device, devices=1, max_epochs=2, callbacks=[clock], default_root_dir=folder, enable_progress_bar=False
        )
        trainer.fit(StockModule(case.make_model()), train, val)
    return clock.seconds


def compose() -> DictConfig:
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return hydra.compose("train")


def ockham(case: Case, device: str) -> float:
    """Seconds of an epoch of Ockham, from metrics.csv to the checkpoint."""
    streams = Streams(0)
    model = case.make_model().to(memory_format=torch.channels_last)
    run = Run(
        settings=Settings(
            seed=0,
            objective="val/acc",
            loss="cross_entropy",
            batch_size=BATCH,
            shuffle=True,
            max_epochs=2,
            max_steps=None,
            accumulate=1,
            clipping=None,
            accelerator=device,
            devices=1,
            precision="32-true",
        ),
        splits=case.splits,
        normalize=case.normalize,
        augment=None,
        model=model,
        regularizers=(),
        make_optimizer=lambda model: make_optimizer(torch.optim.Adam, model, {"lr": LR}),
        schedule=Constant(),
        streams=streams,
    )
    clock = EpochClock()
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(RunSpec(compose(), {}, (), RunFolder(folder)))
        with opened([ledger]):
            ledger.start(run)
            fit(run, ledger, None, callbacks=[clock])
    return clock.seconds


SIDES: dict[str, Callable[[Case, str], float]] = {
    "hand-written loop": hand_written,
    "stock Lightning, 0 workers": lambda case, device: stock(case, device, 0),
    "stock Lightning, 2 workers": lambda case, device: stock(case, device, 2),
    "Ockham": ockham,
}


def usable_device(name: str) -> str:
    """For argparse: `cuda` only where there is a GPU."""
    if name == "cuda" and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError("torch sees no CUDA GPU here")
    return name


def on(device: str) -> str:
    """The setting for a device by torch's name for it."""
    return f"trainer.accelerator={'gpu' if device == 'cuda' else device}"


def machine() -> str:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    name = next((line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.processor())
    return f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {gpu}"


def _cpuinfo() -> list[str]:
    file = Path("/proc/cpuinfo")
    return file.read_text().splitlines() if file.exists() else []


def measure(case: Case, device: str, rounds: int) -> dict[str, list[float]]:
    """Milliseconds a step per side, one figure a round, the sides in turn."""
    figures: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side, run in SIDES.items():
            with global_seed(0, "bench"):
                figures[side].append(run(case, device) / case.steps * 1000)
    return figures


def table(case: Case, figures: dict[str, list[float]]) -> str:
    """One row a side: median, range, and the median over rounds of its time against the hand-written loop's."""
    base = figures["hand-written loop"]
    lines = [f"{case.name}, batch {BATCH}, {case.steps} steps an epoch", "", "| | ms a step | range | x hand-written |"]
    lines.append("|---|---|---|---|")
    for side, values in figures.items():
        ratio = statistics.median(value / other for value, other in zip(values, base, strict=True))
        lines.append(f"| {side} | {statistics.median(values):.2f} | {min(values):.2f} - {max(values):.2f} | {ratio:.2f} |")
    return "\n".join(lines)


#: Ends the process right after the first optimizer step of the default run.
FIRST_STEP = """
import os, runpy, sys
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
register_optimizer_step_post_hook(lambda *arguments: os._exit(0))
sys.argv = ["train.py", "hydra.run.dir=" + sys.argv[1]]
sys.path.insert(0, ".")
runpy.run_path("train.py", run_name="__main__")
"""

START: dict[str, list[str]] = {
    "import hydra": ["-c", "import hydra"],
    "train.py --help": ["train.py", "--help"],
    "train.py optimizer=adm": ["train.py", "optimizer=adm"],
    "train.py optimizer.lr=-1": ["train.py", "optimizer.lr=-1"],
    "import pytorch_lightning": ["-c", "import pytorch_lightning"],
    "train.py, until its first step": ["-c", FIRST_STEP],
}


def measure_start(rounds: int) -> dict[str, list[float]]:
    """Wall seconds of each command, one figure a round, after a first round that is not counted."""
    figures: dict[str, list[float]] = {name: [] for name in START}
    for counted in (False, *[True] * rounds):
        for name, arguments in START.items():
            with tempfile.TemporaryDirectory() as folder:
                started = time.perf_counter()
                command = [sys.executable, *arguments, *([f"{folder}/run"] if FIRST_STEP in arguments else [])]
                subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
                if counted:
                    figures[name].append(time.perf_counter() - started)
    return figures


def start_table(figures: dict[str, list[float]]) -> str:
    lines = ["Start, whole processes", "", "| | s | range |", "|---|---|---|"]
    for name, values in figures.items():
        lines.append(f"| `{name}` | {statistics.median(values):.2f} | {min(values):.2f} - {max(values):.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--case", choices=("start", "mlp", "cnn"), action="append", help="only this table")
    parser.add_argument(
        "--device", type=usable_device, choices=("cpu", "cuda"), default="cpu", help="where the steps of all sides run"
    )
    arguments = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # Lightning's advice on the stock side
    gray, colour = (1, 28, 28), (3, 32, 32)
    cases = {
        "mlp": lambda: Case("MLP 784-128-10", lambda: MLP(gray, 10, hidden=[128]), gray, 55_000, 5_000),
        "cnn": lambda: Case(
            "conv net 32-64-128 on 32x32x3", lambda: CNN(colour, 10, channels=[32, 64, 128], dense=0), colour, 22_500, 2_500
        ),
    }
    print(f"{machine()}\n{', '.join(f'{name} {number}' for name, number in versions().items())}\nn = {arguments.rounds}\n")
    chosen = arguments.case or ["start", *cases]
    results = {}
    if "start" in chosen:
        results["start"] = measure_start(arguments.rounds)
        print(start_table(results["start"]) + "\n", flush=True)
    for name in [name for name in cases if name in chosen]:
        case = cases[name]()
        results[name] = measure(case, arguments.device, arguments.rounds)
        print(table(case, results[name]) + "\n", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "versions": versions(), "figures": results}, indent=2))


if __name__ == "__main__":
    main()
