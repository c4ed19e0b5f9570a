"""The axes of a sweep together with every combination of the groups among them."""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ockham import schema
from ockham.errors import UserError
from ockham.sweep.axes import Axis
from ockham.sweep.composition import CHOICES, Compose, compose_all
from ockham.sweep.jobs import with_values

Check = Callable[[schema.Content], object]
"""Raises UserError for a configuration that is not possible."""


@dataclass(frozen=True)
class Combination:
    """A choice of one option in each group: what it composes to, and which settings of the command line exist there."""

    chosen: tuple[str, ...]
    content: schema.Content
    choices: Mapping[str, Any]
    """The option of every group of conf/, also of those that the command line does not name."""
    fitting: tuple[Axis, ...]
    ranges: tuple[tuple[str, str], ...]
    """What the options declare for a search: (setting, what a command line would say)."""


@dataclass(frozen=True)
class CommandLine:
    """The overrides of a sweep as axes, in their order, and every combination of the groups among them."""

    axes: tuple[Axis, ...]
    groups: tuple[Axis, ...]
    combinations: tuple[Combination, ...]

    @classmethod
    def of(
        cls, axes: Sequence[Axis], *, is_group: Callable[[str], bool], compose: Compose, check: Check | None
    ) -> "CommandLine":
        """Raises UserError for a setting that exists for none of the choices, or a value that is not possible."""
        groups = tuple(axis for axis in axes if is_group(axis.name))
        settings = [axis for axis in axes if axis not in groups]
        combinations = []
        for chosen, base in compose_all([axis.texts for axis in groups], compose):
            content = schema.without_ranges(base)
            choices = content.pop(CHOICES)
            fitting = tuple(axis for axis in settings if axis.always or _exists(content, axis.name))
            if check is not None:
                check_values(content, fitting, check)
            combinations.append(Combination(chosen, content, choices, fitting, tuple(_ranges(base))))
        applied = {axis.name for combination in combinations for axis in combination.fitting}
        known = {path for combination in combinations for path, _ in schema.leaves(combination.content)}
        _check_applied([axis for axis in settings if axis.name not in applied], known)
        return cls(tuple(axes), groups, tuple(combinations))

    def in_order(self, texts: Mapping[str, str]) -> tuple[str, ...]:
        """The override texts of a job, by axis, in the order of the command line; others follow."""
        names = [axis.name for axis in self.axes]
        others = [name for name in texts if name not in names]
        return tuple(texts[name] for name in (*names, *others) if name in texts)

    def narrowed(self, chosen: Mapping[str, int]) -> "CommandLine":
        """The part of it with one value of some axes, by name and position; no combinations where they exist in none."""

        def narrow(axis: Axis) -> Axis:
            return axis.narrowed(chosen[axis.name]) if axis.name in chosen else axis

        groups = tuple(narrow(axis) for axis in self.groups)
        combinations = tuple(
            replace(combination, fitting=tuple(narrow(axis) for axis in combination.fitting))
            for combination in self.combinations
            if all(text in axis.texts for text, axis in zip(combination.chosen, groups, strict=True))
            and all(name in [axis.name for axis in (*groups, *combination.fitting)] for name in chosen)
        )
        return CommandLine(tuple(narrow(axis) for axis in self.axes), groups, combinations)

    @property
    def swept(self) -> tuple[str, ...]:
        return tuple(axis.name for axis in self.axes if axis.is_swept)

    def values(self, path: str) -> list[Any]:
        """Every value that a setting takes in the sweep, those of its axis or of the options."""
        swept = [value for axis in self.axes if axis.name == path for value in axis.values]
        composed = [
            value for combination in self.combinations for name, value in schema.leaves(combination.content) if name == path
        ]
        return swept or composed


def _exists(content: schema.Content, path: str) -> bool:
    node: Any = content
    for key in path.split("."):
        if not isinstance(node, Mapping) or key not in node:
            return False
        node = node[key]
    return True


def _ranges(content: schema.Content, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The declared ranges of a configuration as (setting, what a command line would say)."""
    for key, node in content.items():
        if key == schema.RANGES:
            yield from ((f"{prefix}{name}", str(text)) for name, text in node.items())
        elif isinstance(node, Mapping):
            yield from _ranges(node, f"{prefix}{key}.")


def check_values(content: schema.Content, axes: Sequence[Axis], check: Check) -> None:
    """Every value of every axis by itself, which is linear in their number where the jobs are not."""
    first = {axis.name: axis.values[0] for axis in axes}
    check(with_values(content, first))
    for axis in axes:
        for value in axis.values[1:]:
            check(with_values(content, {**first, axis.name: value}))


def _check_applied(unused: Sequence[Axis], known: set[str]) -> None:
    for axis in unused:
        nearest = difflib.get_close_matches(axis.name, sorted(known), n=1, cutoff=0.5)
        hint = f": did you mean {nearest[0]}?" if nearest else ""
        raise UserError(f"{axis.name} is a setting of none of the choices in this sweep{hint}")
