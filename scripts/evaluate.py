"""Evaluate a finished run from its folder alone.

    python scripts/evaluate.py outputs/runs/<run>                   loss and accuracy on the test set
    python scripts/evaluate.py outputs/runs/<run> --images pictures classify image files

Runs no code from the folder: the checkpoint is read as data, and its configuration names classes of Ockham and torch
only, or of a package given with --trust.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))  # a bare clone works without being installed

import torch

from ockham import build
from ockham.core.metrics import evaluate, logits_of
from ockham.data import Normalize
from ockham.data.image_folder import decode_all, image_files
from ockham.errors import UserError
from ockham.record.checkpoint import Checkpoint
from ockham.record.folder import RunFolder
from ockham.record.resume import read_config, run_folder
from ockham.run import memory_format_of
from ockham.schema import check


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="the run folder")
    parser.add_argument("--images", metavar="DIR", help="classify the image files in this folder instead")
    parser.add_argument("--root", help="where the data set lies, if not where it was during training")
    parser.add_argument("--trust", action="append", default=[], metavar="PACKAGE", help="a package of your own")
    arguments = parser.parse_args()
    try:
        evaluate_folder(run_folder(arguments.run), arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def evaluate_folder(folder: RunFolder, arguments: argparse.Namespace) -> None:
    """Print what was asked for. Raises ValueError where the folder does not allow it."""
    config = read_config(folder)
    config.trust = arguments.trust
    if arguments.root is not None:
        config.data.root = arguments.root
    check(config)
    checkpoint = Checkpoint.load(folder.best_checkpoint)
    spec = checkpoint.input
    model = build.trained_model(config, spec, checkpoint.model)
    normalize = Normalize(spec.mean, spec.std, spec.shape)
    normalize.for_model(next(model.parameters()).dtype, memory_format_of(model), torch.device("cpu"))
    if arguments.images is not None:
        classify(model, normalize, spec.classes, Path(arguments.images))
        return
    test = build.splits_of(config).test
    loss, acc = evaluate(model, test, test.labels, normalize, loss=config.loss)
    print(f"test/loss {loss!r}\ntest/acc {acc!r}")


def classify(model: torch.nn.Module, normalize: Normalize, classes: tuple[str, ...], folder: Path) -> None:
    """Print for every image file below the folder its most probable class and the probability."""
    paths = list(image_files(folder))
    if not paths:
        raise UserError(f"--images {folder} holds no image files")
    if len(normalize.shape) != 3 or normalize.shape[1] != normalize.shape[2]:
        raise UserError(f"the model takes inputs of shape {list(normalize.shape)}, not images")
    channels, height, _ = normalize.shape
    images = decode_all(paths, height, "L" if channels == 1 else "RGB")
    probabilities = logits_of(model, images, normalize).softmax(dim=1)
    for path, row in zip(paths, probabilities, strict=True):
        print(f"{path}\t{classes[int(row.argmax())]}\t{float(row.max()):.4f}")


if __name__ == "__main__":
    main()
