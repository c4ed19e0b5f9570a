"""Composing every combination of group options without asking Hydra for each."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from omegaconf import DictConfig

from ockham import schema

#: Beside the settings that a choice of options composes to: which options those are, of every group.
CHOICES = "choices"

Compose = Callable[[Sequence[str]], DictConfig]
"""Overrides of groups -> the task's configuration."""

Leaves = dict[tuple[str, ...], Any]
"""Settings by path; an empty mapping counts as a value."""


def compose_all(options: Sequence[Sequence[str]], compose: Compose) -> Iterator[tuple[tuple[str, ...], schema.Content]]:
    """What every combination of group options composes to, with the ranges that the options declare.

    Hydra takes a tenth of a second and more for each. Where options of different groups change different settings, as they
    do unless one overrides another, each option is composed once and the combinations are put together from their changes.
    """
    combinations = list(product(*options))
    if len(combinations) <= 2 + sum(len(texts) - 1 for texts in options):
        yield from ((chosen, schema.resolved(compose(chosen))) for chosen in combinations)
        return
    first, last = combinations[0], combinations[-1]
    baseline = _leaves(compose(first))
    changes = [
        {text: _changes(baseline, _leaves(compose((*first[:place], text, *first[place + 1 :])))) for text in texts[1:]}
        for place, texts in enumerate(options)
    ]
    composed_last = compose(last)
    apart = _disjoint([{path for change in by_option.values() for path in change} for by_option in changes])
    if not apart or _put_together(baseline, changes, last) != _leaves(composed_last):
        yield from ((chosen, schema.resolved(compose(chosen))) for chosen in combinations)
        return
    for chosen in combinations:
        yield chosen, _nested(_put_together(baseline, changes, chosen))


_ABSENT = object()


def _leaves(config: DictConfig) -> Leaves:
    def walk(node: Mapping[Any, Any], prefix: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
        for key, value in node.items():
            if isinstance(value, Mapping) and value:
                yield from walk(value, (*prefix, key))
            else:
                yield (*prefix, key), value

    return dict(walk(schema.resolved(config), ()))


def _changes(before: Leaves, after: Leaves) -> Leaves:
    """What leads from one to the other; what disappears is marked."""
    removed = {path: _ABSENT for path in before if path not in after}
    return removed | {path: value for path, value in after.items() if path not in before or before[path] != value}


def _disjoint(touched: Sequence[set[tuple[str, ...]]]) -> bool:
    """Whether no path of one set is, or lies above, a path of another."""
    above = [{path[:length] for path in paths for length in range(1, len(path) + 1)} for paths in touched]
    pairs = ((i, j) for i in range(len(touched)) for j in range(len(touched)) if i != j)
    return not any(touched[i] & above[j] for i, j in pairs)


def _put_together(baseline: Leaves, changes: Sequence[Mapping[str, Leaves]], chosen: Sequence[str]) -> Leaves:
    leaves = dict(baseline)
    for by_option, text in zip(changes, chosen, strict=True):
        leaves |= by_option.get(text, {})  # the first option of each group is in the baseline
    return {path: value for path, value in leaves.items() if value is not _ABSENT}


def _nested(leaves: Leaves) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for (*parents, last), value in leaves.items():
        node = content
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return content
