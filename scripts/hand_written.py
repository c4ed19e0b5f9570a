"""What a person would write in place of a sweep: plain PyTorch loops over images in memory, two processes of one thread each.

    python scripts/hand_written.py grid --output <folder>

Every run trains with torch's own optimizer, validates after each epoch, tests once at the end and leaves a csv. Nothing else:
no checkpoints, no pictures, no resume. It is the side that scripts/bench_command.py compares commands of Ockham with.
"""

import argparse
import csv
import itertools
import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

MNIST5K = Path(__file__).resolve().parents[1] / "src" / "ockham" / "data" / "mnist5k.npz"
LRS = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 3e-3, 5e-3, 1e-2)


def runs_of(case: str) -> list[dict[str, Any]]:
    if case == "grid":
        grid = itertools.product(("sgd", "momentum", "adam", "rmsprop"), ("none", "l1", "l2", "dropout"), (0, 1))
        return [{"optimizer": o, "reg": r, "seed": s, "epochs": 20, "batch": 32, "hidden": 256} for o, r, s in grid]
    if case == "rates":
        pairs = itertools.product(LRS, ("none", "l1", "l2", "dropout"))
        return [{"lr": lr, "reg": r, "epochs": 10, "batch": 128, "hidden": 128} for lr, r in pairs]
    if case == "short":
        grid = itertools.product(("sgd", "adam"), ("none", "l1", "l2", "dropout"), (0, 1))
        return [{"optimizer": o, "reg": r, "seed": s, "epochs": 4, "batch": 32, "hidden": 256} for o, r, s in grid]
    return [{"epochs": 20, "batch": 32, "hidden": 256}]


def load(mnist: Path | None) -> tuple[Any, ...]:
    """Images (n, 784) as floats, and labels, of train, val and test."""
    import numpy as np
    import torch

    if mnist is None:
        content = np.load(MNIST5K)
        images, labels = torch.from_numpy(content["images"]), torch.from_numpy(content["labels"]).long()
        bounds = (0, 3500, 4000, 5000)
    else:
        from torchvision.datasets import MNIST

        parts = [MNIST(str(mnist), train=train) for train in (True, False)]
        images, labels = (torch.cat([getattr(part, name) for part in parts]) for name in ("data", "targets"))
        bounds = (0, 55_000, 60_000, 70_000)
    x = images.flatten(1).float() / 255
    train = x[: bounds[1]]
    x = (x - train.mean()) / train.std()
    return tuple((x[low:high], labels[low:high]) for low, high in itertools.pairwise(bounds))


def train(run: dict[str, Any], data: tuple[Any, ...], output: Path, device: str) -> None:
    import torch
    import torch.nn.functional as F
    from torch import nn

    torch.manual_seed(run.get("seed", 0))
    (x, y), (val_x, val_y), (test_x, test_y) = data
    rate = 0.35 if run.get("reg") == "dropout" else 0.0
    model = nn.Sequential(nn.Linear(784, run["hidden"]), nn.ReLU(), nn.Dropout(rate), nn.Linear(run["hidden"], 10)).to(device)
    optimizers: dict[str, Callable[[], torch.optim.Optimizer]] = {
        "sgd": lambda: torch.optim.SGD(model.parameters(), lr=0.1),
        "momentum": lambda: torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9),
        "adam": lambda: torch.optim.Adam(model.parameters(), lr=run.get("lr", 1e-3), fused=True),
        "rmsprop": lambda: torch.optim.RMSprop(model.parameters(), lr=1e-3, alpha=0.9),
    }
    optimizer = optimizers[run.get("optimizer", "adam")]()
    steps = run["epochs"] * -(-len(y) // run["batch"])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    weights = [parameter for parameter in model.parameters() if parameter.ndim > 1]

    def accuracy(inputs: Any, labels: Any) -> tuple[float, float]:
        model.eval()
        with torch.no_grad():
            logits = model(inputs)
        model.train()
        return F.cross_entropy(logits, labels).item(), (logits.argmax(1) == labels).float().mean().item()

    rows = []
    for epoch in range(run["epochs"]):
        for batch in torch.randperm(len(y), device=device).split(run["batch"]):
            loss = F.cross_entropy(model(x[batch]), y[batch])
            if run.get("reg") == "l1":
                loss = loss + 1e-3 * sum(weight.abs().sum() for weight in weights)
            if run.get("reg") == "l2":
                loss = loss + 1e-4 * sum(weight.square().sum() for weight in weights)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        rows.append(("val", epoch + 1, *accuracy(val_x, val_y)))
    rows.append(("test", run["epochs"], *accuracy(test_x, test_y)))
    with output.open("w", newline="") as file:
        csv.writer(file).writerows([("split", "epoch", "loss", "accuracy"), *rows])


def work(runs: list[tuple[int, dict[str, Any]]], mnist: Path | None, output: Path, device: str, threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    data = tuple((x.to(device), y.to(device)) for x, y in load(mnist))
    for number, run in runs:
        train(run, data, output / f"{number}.csv", device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=("grid", "rates", "short", "single"))
    parser.add_argument("--mnist", type=Path, help="folder of the MNIST files, for rates")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    arguments = parser.parse_args()
    runs = list(enumerate(runs_of(arguments.case)))
    mnist = arguments.mnist if arguments.case == "rates" else None
    if arguments.case == "rates" and mnist is None:
        sys.exit("--mnist is missing: the folder of the MNIST files")
    arguments.output.mkdir(parents=True, exist_ok=True)
    if len(runs) == 1:
        work(runs, mnist, arguments.output, arguments.device, os.cpu_count() or 1)
        return
    context = multiprocessing.get_context("spawn")
    halves = [(runs[first::2], mnist, arguments.output, arguments.device, 1) for first in range(2)]
    processes = [context.Process(target=work, args=half) for half in halves]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit(max(abs(process.exitcode or 0) for process in processes))


if __name__ == "__main__":
    main()
