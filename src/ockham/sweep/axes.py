"""From the overrides of a sweep to axes: each override with every value that it takes, parsed once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, QuotedString, RangeSweep, Transformer

from ockham.errors import UserError


@dataclass(frozen=True)
class Interval:
    """Numbers from `low` to `high`, both included; on a logarithmic scale, or whole, where so asked."""

    low: float
    high: float
    log: bool
    integer: bool


@dataclass(frozen=True)
class Axis:
    """One override of the command line, with every value that it takes: the text for Hydra, and the value itself.

    `argument` is the override as a command line says it, `element` its part before the equals sign. An axis that is `always`
    there adds or deletes a setting. With an `interval` there are no texts, and the values are its ends. `ordered` values come
    from a range.
    """

    name: str
    element: str
    argument: str
    always: bool
    texts: tuple[str, ...]
    values: tuple[Any, ...]
    ordered: bool = False
    interval: Interval | None = None

    @classmethod
    def of(cls, override: Override) -> "Axis":
        """What `listed_twice` made of a plain setting is that plain setting again.

        Raises UserError for an interval whose ends make no sense.
        """
        name, element, line = override.key_or_group, override.get_key_element(), str(override.input_line)
        always = override.is_add() or override.is_force_add() or override.is_delete()
        if not override.is_sweep_override():
            return cls(name, element, line, always, (line,), (override.value(),))
        swept = override.value()
        if isinstance(swept, IntervalSweep):
            interval = _interval(swept, line)
            return cls(name, element, line, always, (), (interval.low, interval.high), interval=interval)
        listed = list(override.sweep_iterator())  # once: it may shuffle
        texts = tuple(f"{element}={Transformer.str(value)}" for value in listed)
        values = tuple(_plain(value) for value in listed)
        if len(listed) == 2 and (text := _listed_twice(line)) is not None:
            return cls(name, element, f"{element}={text}", always, (f"{element}={text}",), values[:1])
        return cls(name, element, line, always, texts, values, ordered=isinstance(swept, RangeSweep))

    def narrowed(self, position: int) -> "Axis":
        """The axis with one of its values."""
        text = self.texts[position]
        return replace(self, argument=text, texts=(text,), values=(self.values[position],), ordered=False)

    @property
    def extent(self) -> dict[str, Any]:
        """The values that it takes, in plain containers: the ends of an interval and whether it is logarithmic, or all."""
        if self.interval is None:
            return {"values": [text.partition("=")[2] for text in self.texts]}
        return {"low": self.interval.low, "high": self.interval.high, "log": self.interval.log}

    @property
    def is_swept(self) -> bool:
        return len(self.texts) > 1 or self.interval is not None

    @property
    def group(self) -> str:
        """The part of its name before the first dot."""
        return self.name.partition(".")[0]


def parse_axes(arguments: Sequence[str], config_loader: ConfigLoader | None = None) -> list[Axis]:
    """One axis a setting, in the order of the command line; of several overrides of one setting the last counts, in its place.

    The config loader says which options a glob(...) stands for.
    """
    parsed = OverridesParser.create(config_loader).parse_overrides(list(arguments))
    last: dict[str, Override] = {}
    for override in parsed:
        last.pop(override.key_or_group, None)
        last[override.key_or_group] = override
    return [Axis.of(override) for override in last.values()]


def listed_twice(argument: str) -> str:
    """A plain setting as a sweep over one value. A choice(value) would lose the quotes of a text, and takes no null."""
    key, _, value = argument.partition("=")
    value = value or "''"
    return f"{key}={value},{value}"


def _listed_twice(line: str) -> str | None:
    """The value that an override lists twice, as it was written."""
    listed = line.partition("=")[2]
    value = listed[: len(listed) // 2]
    return value if listed == f"{value},{value}" else None


def _interval(swept: IntervalSweep, line: str) -> Interval:
    low, high, log = swept.start, swept.end, "log" in swept.tags
    if low is None or high is None or not low < high or (log and low <= 0):
        raise UserError(f"{line} is not possible: the ends of an interval rise, and are above 0 on a logarithmic scale")
    return Interval(low, high, log, integer=isinstance(low, int) and isinstance(high, int))


def _plain(value: Any) -> Any:
    """The value without the quotes that it was written with, as Hydra puts it into the configuration."""
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    if isinstance(value, dict):
        return {_plain(key): _plain(entry) for key, entry in value.items()}
    return value
