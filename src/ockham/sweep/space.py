"""From the overrides of a sweep to its jobs: a grid that is conditional by itself."""

import copy
import difflib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from ockham import schema

Compose = Callable[[Sequence[str]], DictConfig]
"""Overrides of groups -> the task's configuration."""


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    `key` identifies what it computes: jobs with one key are one job. `configuration` is the same without the seed and the
    fold, so that it names the row of summary.csv that the job counts for.
    """

    number: int
    overrides: tuple[str, ...]
    key: str
    configuration: str


def plain_text(override: Override) -> str:
    """The override as text; a sweep with a single value, as the command line makes of plain settings, without its choice()."""
    if override.is_sweep_override() and override.is_discrete_sweep():
        texts = list(override.sweep_string_iterator())
        if len(texts) == 1:
            return f"{override.get_key_element()}={texts[0]}"
    return str(override.input_line)


@dataclass(frozen=True)
class Axis:
    """One override of the command line, with every value that it takes: the text for Hydra, and the value itself."""

    name: str
    always: bool
    texts: tuple[str, ...]
    values: tuple[Any, ...]

    @classmethod
    def parse(cls, override: Override, parser: OverridesParser) -> "Axis":
        """Raises ValueError for a range without steps, which only a search can sample."""
        element = override.get_key_element()
        if override.is_sweep_override():
            if not override.is_discrete_sweep():
                raise ValueError(f"{override.input_line} is an interval, which a grid cannot list: use range or a list")
            texts = tuple(f"{element}={text}" for text in override.sweep_string_iterator())
        else:
            texts = (str(override.input_line),)
        values = tuple(parsed.value() for parsed in parser.parse_overrides(list(texts)))
        always = override.is_add() or override.is_force_add() or override.is_delete()
        return cls(override.key_or_group, always, texts, values)

    @property
    def is_swept(self) -> bool:
        return len(self.texts) > 1


@dataclass(frozen=True)
class Grid:
    """The jobs of a grid in order, the swept keys, and how many duplicates were dropped."""

    jobs: tuple[Job, ...]
    swept: tuple[str, ...]
    duplicates: int


def grid(
    overrides: Sequence[str],
    *,
    is_group: Callable[[str], bool],
    compose: Compose,
    check: Callable[[DictConfig], object] | None,
    replicates: Sequence[Sequence[str]] = ((),),
) -> Grid:
    """All combinations of the overrides, in the order of the command line, groups before settings.

    A setting that does not exist for a job's choices of groups does not apply to that job; jobs that come out equal are run
    once. Each configuration is run once for each of the `replicates`, lists of further overrides (seeds, folds).
    Raises ValueError for a setting that exists for none of the choices, or a value that is not possible.
    """
    parser = OverridesParser.create()
    parsed = {override.key_or_group: override for override in parser.parse_overrides(list(overrides))}
    axes = [Axis.parse(override, parser) for override in parsed.values()]
    groups = [axis for axis in axes if is_group(axis.name)]
    settings = [axis for axis in axes if not is_group(axis.name)]
    replicate_axes = [[(text, *_assignment(text, parser)) for text in replicate] for replicate in replicates]
    applied: set[str] = set()
    known: set[str] = set()
    seen: dict[str, Job] = {}
    total = 0
    for chosen in product(*(axis.texts for axis in groups)):
        base = compose(chosen)
        known.update(path for path, _ in schema.leaves(base))
        fitting = [axis for axis in settings if axis.always or _exists(base, axis.name)]
        applied.update(axis.name for axis in fitting)
        if check is not None:
            _check_values(base, fitting, check)
        plain = schema.container(base)
        for picked in product(*(list(zip(axis.texts, axis.values, strict=True)) for axis in fitting)):
            assigned = [(axis.name, value) for axis, (_, value) in zip(fitting, picked, strict=True)]
            texts = _in_order(axes, groups, chosen, fitting, [text for text, _ in picked])
            for replicate in replicate_axes:
                total += 1
                content = with_values(plain, [*assigned, *((key, value) for _, key, value in replicate)])
                key = digest(content)
                if key not in seen:
                    line = (*texts, *(text for text, _, _ in replicate))
                    seen[key] = Job(len(seen), line, key, digest(without_replicates(content)))
    _check_applied([axis for axis in settings if axis.name not in applied], known)
    swept = tuple(axis.name for axis in axes if axis.is_swept)
    extra = tuple(dict.fromkeys(key for replicate in replicate_axes for _, key, _ in replicate))
    return Grid(tuple(seen.values()), (*swept, *(key for key in extra if key not in swept)), total - len(seen))


def _assignment(text: str, parser: OverridesParser) -> tuple[str, Any]:
    override = parser.parse_override(text)
    return override.key_or_group, override.value()


def _exists(config: DictConfig, path: str) -> bool:
    marker = object()
    return OmegaConf.select(config, path, default=marker) is not marker or _is_null(config, path)


def _is_null(config: DictConfig, path: str) -> bool:
    """Whether the path exists and holds null, which select() cannot tell from an absent one."""
    parent, _, key = path.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    return isinstance(node, DictConfig) and key in node


def _check_values(base: DictConfig, axes: Sequence[Axis], check: Callable[[DictConfig], object]) -> None:
    """Every value of every axis by itself, which is linear in their number where the jobs are not."""
    first = [(axis.name, axis.values[0]) for axis in axes]
    for axis in axes:
        for value in axis.values:
            changed = copy.deepcopy(base)
            OmegaConf.set_struct(changed, False)
            for name, own in [*first, (axis.name, value)]:
                OmegaConf.update(changed, name, own, merge=False)
            check(changed)


def _in_order(
    axes: Sequence[Axis], groups: Sequence[Axis], chosen: Sequence[str], fitting: Sequence[Axis], picked: Sequence[str]
) -> tuple[str, ...]:
    """The override texts of a job in the order of the command line."""
    text_of = {axis.name: text for axis, text in zip(groups, chosen, strict=True)}
    text_of |= {axis.name: text for axis, text in zip(fitting, picked, strict=True)}
    return tuple(text_of[axis.name] for axis in axes if axis.name in text_of)


def with_values(plain: Mapping[str, Any], assigned: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A copy of the nested settings with values put at dotted paths."""
    content: dict[str, Any] = copy.deepcopy(dict(plain))
    for path, value in assigned:
        *parents, last = path.split(".")
        node = content
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return content


def without_replicates(content: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without those that only repeat a configuration."""
    return {key: value for key, value in content.items() if key not in ("seed", "fold")}


def digest(content: Mapping[str, Any]) -> str:
    """A short hash of settings; those of the sweep as a whole do not count."""
    own = {key: value for key, value in content.items() if key not in schema.SWEEP_SETTINGS}
    return hashlib.sha256(json.dumps(own, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _check_applied(unused: Sequence[Axis], known: set[str]) -> None:
    for axis in unused:
        nearest = difflib.get_close_matches(axis.name, sorted(known), n=1, cutoff=0.5)
        hint = f": did you mean {nearest[0]}?" if nearest else ""
        raise ValueError(f"{axis.name} is a setting of none of the choices in this sweep{hint}")


def replicates(seeds: int | Sequence[int] | None, cv: int | None) -> list[tuple[str, ...]]:
    """The overrides of each repetition: every seed, times every fold."""
    seed_list: Iterator[int] | Sequence[int] = range(seeds) if isinstance(seeds, int) else seeds or ()
    by_seed: list[tuple[str, ...]] = [(f"seed={seed}",) for seed in seed_list] or [()]
    by_fold: list[tuple[str, ...]] = [(f"cv={cv}", f"fold={fold}") for fold in range(cv or 0)] or [()]
    return [(*seed, *fold) for seed, fold in product(by_seed, by_fold)]
