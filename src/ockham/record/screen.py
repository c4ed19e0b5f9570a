"""What a run prints: the summary at its start, the table at its end."""

import csv
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from ockham.record.folder import RunFolder
from ockham.schema import container

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
    data = f"{len(splits.train):,} train, {len(splits.val):,} val, {len(splits.test):,} test; "
    data += f"{len(splits.classes)} classes, input {' x '.join(map(str, run.normalize.shape))}"
    rows = {
        "data": f"{_name(choices, config, 'data')}: {data}",
        "augment": _choice(_name(choices, config, "augment"), config.augment),
        "model": f"{_choice(_name(choices, config, 'model'), config.model)}: {run.num_parameters:,} parameters",
        "optimizer": _choice(_name(choices, config, "optimizer"), config.optimizer),
        "schedule": _choice(_name(choices, config, "schedule"), config.schedule),
        "reg": "; ".join(_choice(name, config.reg[name]) for name in sorted(config.reg)) or "none",
        "length": f"{run.num_epochs} epochs of {run.steps_per_epoch} steps, {batch} each",
        "seed": f"{config.seed}, judged by {config.objective}",
        "device": f"{run.device_name}, {settings.precision}",
        "folder": _short(folder.path),
    }
    return "\n".join(f"  {name:<10}{value}" for name, value in rows.items() if value != "none")


def _name(choices: Mapping[str, str], config: DictConfig, group: str) -> str:
    """The option chosen in the group; where that is not known, the name of its class."""
    return choices.get(group) or str(config[group].get("_target_", "none")).rpartition(".")[2]


def _choice(name: str, node: DictConfig) -> str:
    line = settings_line(node)
    return f"{name} ({line})" if line else name


def _short(path: Path) -> str:
    """Relative to the working directory where that is shorter."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def result(folder: RunFolder) -> str:
    """The final table, where the run lies, and how to look at it."""
    metrics, cost = folder.metrics(), folder.cost()
    lines = [f"  {'':<8}{'loss':>8}{'accuracy':>10}"]
    lines += [f"  {name:<8}{metrics[f'{name}/loss']:>8.4f}{metrics[f'{name}/acc']:>10.4f}" for name in ("train", "val", "test")]
    lines += [
        "",
        f"  weights of epoch {metrics['best_epoch']} of {metrics['last_epoch']}, {metrics['steps']} steps in "
        f"{cost['train_seconds']:.1f} s ({cost['samples_per_second']:,.0f} samples/s)",
        f"  weight norm {metrics['weight_norm']:.3f}, penalty {metrics['penalty']:.4g}, exact zeros "
        f"{metrics['zero_fraction']:.1%} of the weights",
        "",
        f"  folder   {_short(folder.path)}",
        f"  look     tensorboard --logdir {_short(folder.path)}",
    ]
    return "\n".join(lines)


def sweep_result(folder: Path, *, objective: str) -> str:
    """The ten best configurations on validation, and the command that repeats the best one."""
    with (folder / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    best = [row for row in rows if int(row["n"])][:10]
    if not best:
        return f"  no job is finished; see {_short(folder)}"
    swept = list(best[0])[1 : list(best[0]).index("n")]
    table = [["job", *swept, "n", objective, "95% interval", "test/acc"]]
    for row in best:
        low, high = row["objective low"], row["objective high"]
        shown = f"{float(low):.4f} - {float(high):.4f}" if low else ""
        figures = [f"{float(row['objective']):.4f}", shown, f"{float(row['test/acc']):.4f}"]
        table.append([row["job"], *(row[key] for key in swept), row["n"], *figures])
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
    jobs = json.loads((folder / "sweep.json").read_text())["jobs"]
    overrides = next(job["overrides"] for job in jobs if str(job["number"]) == best[0]["job"])
    command = " ".join(shlex.quote(override) for override in overrides)
    return "\n".join(
        [*(f"  {line}" for line in lines), "", f"  best     python train.py {command}", f"  tables   {_short(folder)}/*.csv"]
    )


def error_screen(message: str, *, notes: Sequence[str] = ()) -> str:
    """A user's mistake: what is wrong, then how to mend it."""
    return "\n".join([f"error: {message}", *(f"  {note}" for note in notes)])
