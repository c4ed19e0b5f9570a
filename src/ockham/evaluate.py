"""The command `ockham evaluate`: a finished run, or the best of a sweep, from its folder alone.

Runs no code from the folder: the checkpoint is read as data, and its configuration names classes of Ockham and torch only, or
of a package given with --trust.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ockham import build
from ockham.core.metrics import evaluate, logits_of
from ockham.data import Normalize
from ockham.data.image_folder import decode_all, image_files
from ockham.errors import UserError
from ockham.record.checkpoint import best_checkpoint
from ockham.record.folder import RunFolder
from ockham.record.resume import read_config, run_folder
from ockham.record.screen import error_screen, printable, shown_path
from ockham.report.analysis import analyse
from ockham.report.reading import evidence, read
from ockham.run import memory_format_of
from ockham.schema import check

DESCRIPTION = """\
Evaluate a finished run from its folder alone, or of a sweep the best configuration on validation, by its first seed.

  $PROGRAM outputs/runs/<run>                      loss and accuracy on the test set
  $PROGRAM outputs/sweeps/<name>                   the same of the best of a sweep
  $PROGRAM outputs/runs/<run> --images pictures    classify image files: file, class and probability, tabs between

Runs no code from the folder: the checkpoint is read as data, and its configuration names classes of Ockham and torch
only, or of a package given with --trust.
"""

#: Training images whose mean is so far from the middle gray have a background: light, or dark.
CLEARLY_DARK_OR_LIGHT = 0.15


def main(words: Sequence[str], *, program: str) -> None:
    """Do what the words after `program` ask for. A mistake ends the process with exit code 2."""
    arguments = _parser(program).parse_args(words)
    try:
        _evaluate(_folder(arguments.folder), arguments)
    except UserError as error:
        print(error_screen(str(error)), file=sys.stderr)
        sys.exit(2)


def _parser(program: str) -> argparse.ArgumentParser:
    description = DESCRIPTION.replace("$PROGRAM", program)
    parser = argparse.ArgumentParser(program, description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="a run or a sweep")
    parser.add_argument("--images", metavar="DIR", help="classify the image files in this folder instead")
    parser.add_argument("--root", help="where the data set lies, if not where it was during training")
    parser.add_argument("--trust", action="append", default=[], metavar="PACKAGE", help="a package of your own")
    return parser


def _folder(path: str) -> RunFolder:
    """The run folder itself, or that of the best run of a sweep, which is told."""
    if not (Path(path) / "sweep.json").is_file():
        return run_folder(path)
    winner = analyse(evidence(read([Path(path)]))).winner
    if winner is None:
        raise UserError(f"{path} holds no finished run yet")
    best = RunFolder(winner.finished[0].path)
    print(f"run {shown_path(best.path)}")
    return best


def _evaluate(folder: RunFolder, arguments: argparse.Namespace) -> None:
    """Print what was asked for. Raises UserError where the folder does not allow it."""
    config = read_config(folder)
    config.trust = arguments.trust
    if arguments.root is not None:
        config.data.root = arguments.root
    check(config)
    if config.get("note"):
        print(f"note {printable(config.note)}")
    checkpoint = best_checkpoint(folder, config)
    spec = checkpoint.input
    model = build.trained_model(config, spec, checkpoint.model)
    normalize = Normalize(spec.mean, spec.std, spec.shape)
    normalize.for_model(next(model.parameters()).dtype, memory_format_of(model), torch.device("cpu"))
    if arguments.images is not None:
        _classify(model, normalize, spec.classes, Path(arguments.images))
        return
    test = build.splits_of(config).test
    loss, acc = evaluate(model, test, test.labels, normalize, loss=config.loss)
    print(f"test/loss {loss!r}\ntest/acc {acc!r}")


def _classify(model: nn.Module, normalize: Normalize, classes: tuple[str, ...], folder: Path) -> None:
    """Print for every image file below the folder its most probable class and the probability."""
    paths = list(image_files(folder))
    if not paths:
        raise UserError(f"--images {folder} holds no image files")
    if len(normalize.shape) != 3 or normalize.shape[1] != normalize.shape[2]:
        raise UserError(f"the model takes inputs of shape {list(normalize.shape)}, not images")
    channels, height, _ = normalize.shape
    images = decode_all(paths, height, "L" if channels == 1 else "RGB")
    warning = inversion_warning(images, normalize.mean)
    if warning is not None:
        print(f"warning: {warning}", file=sys.stderr)
    probabilities = logits_of(model, images, normalize).softmax(dim=1)
    for path, row in zip(paths, probabilities, strict=True):
        print(f"{printable(str(path))}\t{printable(classes[int(row.argmax())])}\t{float(row.max()):.4f}")


def inversion_warning(images: Tensor, trained_on: Sequence[float]) -> str | None:
    """What to say where most images (N, C, H, W) of bytes are dark on light and those of the training light on dark, or the
    other way round; `trained_on` is the mean of those by channel, in [0, 1]. None where there is nothing to say.

    An image that is inverted has the mean 1 - m in place of m. Photographs, with means around 1/2, never get a warning.
    """
    mean = sum(trained_on) / len(trained_on)
    if not CLEARLY_DARK_OR_LIGHT < abs(mean - 0.5) <= 0.5:
        return None
    means = images.double().mean(dim=(1, 2, 3)) / 255
    inverted = int(((means - 0.5) * (mean - 0.5) < 0).sum())
    if inverted <= len(means) / 2:
        return None
    return (
        f"{inverted} of {len(means)} images look inverted: their mean brightness is {float(means.mean()):.2f}, that of the "
        f"images that the model was trained on {mean:.2f}; invert them, or its answers mean nothing"
    )
