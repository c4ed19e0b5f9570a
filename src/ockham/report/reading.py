"""Run folders as they lie on disk: finished, failed, or being written at this moment."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ockham.core.files import read_sealed_json
from ockham.errors import UserError
from ockham.identity import computed, configuration_key, is_of_configuration
from ockham.record.folder import EPOCH_SCALARS, RunFolder
from ockham.record.resume import check_plain_yaml

#: Groups whose option is worth a column.
GROUPS = ("data", "augment", "model", "optimizer", "schedule")

#: The final figures of a run that a report cannot do without.
REQUIRED_METRICS = (
    "objective", "train/acc", "val/acc", "val/loss", "zero_fraction", "steps", "flops",
)  # fmt: skip

Epochs = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class RecordedRun:
    """What a run folder holds. `values` are its options by group, and its other overrides, as text."""

    path: Path
    state: str
    values: Mapping[str, str]
    overrides: tuple[str, ...]
    configuration_key: str
    replicate: tuple[Any, Any]
    """Its seed and its fold: runs of two configurations with the same ones belong together."""
    objective: str
    metrics: Mapping[str, float]
    cost: Mapping[str, float]
    epochs: Epochs
    reason: str | None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Every setting that it computes with by dotted path, as its configuration has it."""
    note: str = ""
    #: Of a comparison what the run belongs to: an arm, and the search of its best setting or the confirmation of that.
    arm: str = ""
    stage: str = ""


@dataclass(frozen=True)
class RecordedComparison:
    """What sweep.json says of a comparison: what every arm was searched over, by setting, and how often its confirmation was
    looked at to decide whether to go on, 0 where that was fixed."""

    spaces: Mapping[str, Mapping[str, Mapping[str, Any]]]
    looks: int


@dataclass
class RecordedRuns:
    """All runs below some folders, what could not be read, and how many jobs of sweeps have no folder yet."""

    runs: list[RecordedRun] = field(default_factory=list)
    problems: list[tuple[Path, str]] = field(default_factory=list)
    waiting: int = 0
    comparisons: list["RecordedComparison"] = field(default_factory=list)
    searches: list[Path] = field(default_factory=list)
    """The sweeps that searched, those of a comparison among them; the numbers of their runs are in the order of the trials."""


def evidence(recorded: RecordedRuns) -> list[RecordedRun]:
    """The runs that may be compared: all but those by which a comparison chose its settings."""
    return [run for run in recorded.runs if run.stage != "search"]


def searched(recorded: RecordedRuns) -> list[RecordedRun]:
    """The runs by which a comparison chose its settings."""
    return [run for run in recorded.runs if run.stage == "search"]


def read(folders: Sequence[Path]) -> RecordedRuns:
    """Read everything below the folders; a folder that cannot be read is named in `problems`, and left out.

    Raises UserError where a folder does not exist.
    """
    recorded = RecordedRuns()
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder: name a sweep or a run, for example outputs/sweeps/<name>")
        for path, role in _run_folders(folder, recorded):
            try:
                run = _read_run(path, role)
            except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
                reason = str(error).strip() or "no reason given"
                kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
                recorded.problems.append((path, kind + reason.splitlines()[0]))
            else:
                if run is None:
                    recorded.waiting += 1
                else:
                    recorded.runs.append(run)
    return recorded


class Role(NamedTuple):
    """What a sweep plans in a run folder: the key of the run, and of a comparison its arm and stage; empty elsewhere."""

    arm: str = ""
    stage: str = ""
    key: str = ""


def _run_folders(folder: Path, recorded: RecordedRuns) -> Iterator[tuple[Path, Role]]:
    """The run folders at and below a folder, those of a sweep by number; jobs without a folder count as waiting."""
    roles: dict[Path, Role] = {}
    for place, subfolders, files in os.walk(folder):
        if ".hydra" in subfolders or "status.json" in files:
            yield Path(place), roles.get(Path(place)) or _role_above(Path(place))
            subfolders.clear()
            continue
        if "sweep.json" in files:
            try:
                of_sweep = _roles(Path(place), recorded)
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                recorded.problems.append((Path(place), f"sweep.json: {error}"))
            else:
                roles |= of_sweep
                recorded.waiting += len({path.name for path in of_sweep} - set(subfolders))
        subfolders[:] = sorted((name for name in subfolders if not name.startswith(".")), key=lambda name: (len(name), name))


def _roles(sweep: Path, recorded: RecordedRuns) -> dict[Path, Role]:
    """The run folders that a sweep plans, with their roles; searches and the spaces of a comparison go to `recorded`."""
    content = read_sealed_json(sweep / "sweep.json")
    roles = {
        sweep / str(job["number"]): Role(*(str(job.get(name, "")) for name in ("arm", "stage", "key")))
        for job in content["jobs"]
    }
    if "trials" in content or "arms" in content:
        recorded.searches.append(sweep)
    if "arms" in content:
        spaces = {
            str(name): {str(key): dict(extent) for key, extent in arm["space"].items()} for name, arm in content["arms"].items()
        }
        recorded.comparisons.append(RecordedComparison(spaces, int(content["looks"])))
    return roles


def _role_above(run: Path) -> Role:
    """The role of a run that was named by itself."""
    try:
        return _roles(run.parent, RecordedRuns()).get(run, Role())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Role()


def _read_run(path: Path, role: Role) -> RecordedRun | None:
    """None for a folder in which no run has begun. Raises whatever is wrong with its files."""
    folder = RunFolder(path)
    status = _mapping("status.json", folder.status())
    if not (path / "status.json").exists():
        if folder.config_file.exists() or not any(path.glob("metrics.*")):
            return None
        raise UserError("no status.json beside its metrics")
    folder.check_request()
    if role.key and status.get("run_key", role.key) != role.key:
        raise UserError("sweep.json plans another run for this folder")
    config = _yaml(folder.config_file)
    hydra = _yaml(path / ".hydra" / "hydra.yaml")["hydra"]
    overrides = tuple(str(text) for text in hydra["overrides"]["task"])
    metrics, cost = _mapping("metrics.json", folder.metrics()), _mapping("cost.json", folder.cost())
    if status["state"] == "finished":
        _require("metrics.json", metrics, REQUIRED_METRICS)
    epochs = folder.epochs()
    if epochs:
        _require("metrics.csv", epochs[0], ("epoch", "step", *EPOCH_SCALARS))
    error = _mapping("status.json", status.get("error") or {})
    return RecordedRun(
        path=path,
        state=str(status["state"]),
        values=_values(config, hydra["runtime"]["choices"], overrides),
        overrides=overrides,
        configuration_key=configuration_key(config),
        replicate=(config.get("seed"), config.get("fold")),
        objective=str(config["objective"]),
        metrics={key: float(value) for key, value in metrics.items()},
        cost={key: float(value) for key, value in cost.items() if value is not None},
        epochs=epochs,
        reason=error.get("message"),
        settings=computed(config),
        note=str(status.get("note") or ""),
        arm=role.arm,
        stage=role.stage,
    )


def _mapping(name: str, content: Any) -> Mapping[str, Any]:
    if not isinstance(content, dict):
        raise UserError(f"{name} holds {type(content).__name__} where names and values belong")
    return content


def _require(name: str, content: Mapping[str, Any], keys: Sequence[str]) -> None:
    missing = [key for key in keys if key not in content]
    if missing:
        raise UserError(f"{name} lacks {', '.join(missing)}")


def _yaml(file: Path) -> dict[str, Any]:
    check_plain_yaml(file)
    content = yaml.load(file.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    if not isinstance(content, dict):
        raise UserError(f"{file.name} holds no settings")
    return content


def _values(config: Mapping[str, Any], choices: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, str]:
    values = {group: str(choices[group]) for group in GROUPS if choices.get(group)}
    values["reg"] = "+".join(sorted(config.get("reg") or {})) or "none"
    overridden = dict(override.lstrip("+").split("=", 1) for override in overrides if "=" in override)
    kept = {key for key in overridden if key not in (*values, "cv", "experiment") and is_of_configuration(key)}
    return values | {key: text for key, text in overridden.items() if key in kept}
