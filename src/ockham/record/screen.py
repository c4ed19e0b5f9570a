"""What a run prints: the summary at its start, the table at its end."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from ockham.core.measures import MEASURES, measured_finally
from ockham.record.folder import TARGET_METRICS, RunFolder
from ockham.schema import SWEEP_SETTINGS, container

if TYPE_CHECKING:
    from ockham.run import Run


def settings_line(node: DictConfig) -> str:
    """The settings of a group on one line, without its class: `lr 0.001, betas [0.9, 0.999]`."""
    shown = {key: value for key, value in container(node).items() if key != "_target_" and value is not None}
    return ", ".join(f"{key!s} {_text(value)}" for key, value in shown.items())


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def summary(config: DictConfig, choices: Mapping[str, str], run: "Run", folder: RunFolder) -> str:
    """What will run, on one screen."""
    splits, settings = run.splits, run.settings
    batch = f"{settings.batch_size} samples" if settings.shuffle else "the whole training split"
    batch += f" x {settings.accumulate} accumulated" if settings.accumulate > 1 else ""
    evaluated = "" if settings.evaluate_every is None else f", evaluated every {settings.evaluate_every} steps"
    data = f"{len(splits.train):,} train, {len(splits.val):,} val, {len(splits.test):,} test; "
    data += f"{len(splits.classes)} classes, input {' x '.join(map(str, run.normalize.shape))}"
    if config.data.get("label_noise") is not None:
        data += f", label noise {config.data.label_noise} {config.data.label_noise_kind}"
    data += ", pixels shuffled" if config.data.get("shuffle_pixels") else ""
    rows = {
        "data": f"{_name(choices, config, 'data')}: {data}",
        "augment": _choice(_name(choices, config, "augment"), config.augment),
        "model": f"{_choice(_name(choices, config, 'model'), config.model)}: {run.num_parameters:,} parameters",
        "optimizer": _choice(_name(choices, config, "optimizer"), config.optimizer),
        "schedule": _choice(_name(choices, config, "schedule"), config.schedule),
        "reg": "; ".join(_choice(name, config.reg[name]) for name in sorted(config.reg)) or "none",
        "length": f"{run.num_epochs} epochs of {run.steps_per_epoch} steps, {batch} each{evaluated}",
        "seed": f"{config.seed}, judged by {config.objective}",
        "loss": "none" if settings.loss == "cross_entropy" else settings.loss,
        "device": f"{run.device_name}, {settings.precision}",
        "folder": shown_path(folder.path),
        "target": str(settings.target or "none") + (", where the run ends" if settings.stop_at_target else ""),
        "note": printable(str(config.get("note") or "none")),
    }
    return "\n".join(f"  {name:<10}{value}" for name, value in rows.items() if value != "none")


def _name(choices: Mapping[str, str], config: DictConfig, group: str) -> str:
    """The option chosen in the group; where that is not known, the name of its class."""
    return choices.get(group) or str(config[group].get("_target_", "none")).rpartition(".")[2]


def _choice(name: str, node: DictConfig) -> str:
    line = settings_line(node)
    return f"{name} ({line})" if line else name


def shown_path(path: Path) -> str:
    """Relative to the working directory where that is shorter."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def result(folder: RunFolder) -> str:
    """The final table, where the run lies, and how to look at it."""
    metrics, cost = folder.metrics(), folder.cost()
    measured = [f"{name} {metrics[name]:.4g}" for name in measured_finally(MEASURES) if name in metrics]
    lines = [f"  {'':<8}{'loss':>8}{'accuracy':>10}"]
    judged = [name for name in ("train", "val", "test") if f"{name}/loss" in metrics]
    lines += [f"  {name:<8}{metrics[f'{name}/loss']:>8.4f}{metrics[f'{name}/acc']:>10.4f}" for name in judged]
    lines += [
        "",
        f"  weights of epoch {metrics['best_epoch']} of {metrics['last_epoch']}, {metrics['steps']} steps in "
        f"{cost['train_seconds']:.1f} s ({cost['samples_per_second']:,.0f} samples/s)",
        *_target_line(metrics),
        f"  weight norm {metrics['weight_norm']:.3f}, penalty {metrics['penalty']:.4g}, exact zeros "
        f"{metrics['zero_fraction']:.1%} of the weights",
        *([f"  {', '.join(measured)}"] if measured else []),
        "",
        f"  folder   {shown_path(folder.path)}",
        f"  look     tensorboard --logdir {shown_path(folder.path)}",
    ]
    return "\n".join(lines)


def _target_line(metrics: Mapping[str, float]) -> list[str]:
    if TARGET_METRICS[0] not in metrics:
        return []
    steps, samples, flops = (metrics[name] for name in TARGET_METRICS)
    return [f"  target first met after {steps} steps, {samples:,} samples, {flops:.3g} floating-point operations"]


def program() -> str:
    """The words that a user starts this program with: `ockham`, or in a checkout `python train.py`."""
    return "ockham" if Path(sys.argv[0]).stem == "ockham" else "python train.py"


def repeating_command(overrides: Sequence[str]) -> str:
    """The command that repeats one run by itself, from the overrides of its folder.

    What concerns a sweep is left out, `prune` among it: nothing prunes a run that has no peers, and one that finished was not
    pruned. A note is about the run that was.
    """
    left_out = (*SWEEP_SETTINGS, "resume", "note")
    settings = [text for text in overrides if text.lstrip("+~").partition("=")[0].partition(".")[0] not in left_out]
    return shlex.join([*program().split(), *settings])


def error_screen(message: str, *, notes: Sequence[str] = ()) -> str:
    """A user's mistake: what is wrong, then how to mend it."""
    return printable("\n".join([f"error: {message}", *(f"  {note}" for note in notes)]))


def printable(text: str) -> str:
    """Without what a terminal would obey: names and remarks come from folders, whoever made them."""
    return "".join(character if character.isprintable() or character in "\n\t" else repr(character)[1:-1] for character in text)
