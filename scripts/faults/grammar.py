"""The grammar of commands as conf/ has it: groups, options, and settings with their values; new ones are in by themselves."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from faults.trial import ROOT

CONF = ROOT / "conf"

#: Groups of a sweep as a whole.
OF_SWEEPS = ("search", "prune", "executor")


class Setting(NamedTuple):
    """A setting with the value that its yaml gives it; `words` choose the option that has it."""

    path: str
    value: Any
    words: tuple[str, ...]

    @property
    def key(self) -> str:
        return self.path.rpartition(".")[2]


@cache
def groups() -> tuple[str, ...]:
    return tuple(sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name not in ("hydra", "experiment")))


@cache
def options(group: str) -> tuple[str, ...]:
    return tuple(sorted(file.stem for file in (CONF / group).glob("*.yaml")))


@cache
def settings() -> tuple[Setting, ...]:
    """Every setting of every option, and those of the top level."""
    top = _content(CONF / "train.yaml")
    listed = [Setting(key, value, ()) for key, value in top.items() if key not in ("defaults", "hydra")]
    for group in groups():
        for option in options(group):
            is_global = (CONF / group / f"{option}.yaml").read_text().startswith("# @package _global_")
            for path, value in _leaves(_merged(group, option), "" if is_global else f"{group}."):
                words = (f"{group}={option}",)
                listed.append(Setting(path, value, ("-m", *words) if group in OF_SWEEPS else words))
    return tuple(listed)


def _content(file: Path) -> dict[str, Any]:
    content: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=False)  # which knows 1e-3 for a number
    return content


def _merged(group: str, option: str) -> dict[str, Any]:
    """The settings of an option on those of the option that it builds on."""
    content = _content(CONF / group / f"{option}.yaml")
    for base in content.pop("defaults", ()):
        if isinstance(base, str):
            content = {**_merged(group, base), **content}
    return content


def _leaves(content: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    leaves = []
    for key, value in content.items():
        if key in ("_target_", "ranges"):
            continue
        leaves += _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return leaves
