"""A configuration in plain containers."""

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ockham.errors import UserError

#: In a yaml: what a search samples where the command gives no range. No setting of a run.
RANGES = "ranges"

Content = Mapping[str, Any]
"""A configuration, or a part of one, in plain containers."""


def container(config: DictConfig) -> dict[str, Any]:
    """The settings in plain nested containers. Raises UserError for an interpolation that leads nowhere."""
    return without_ranges(resolved(config))


def resolved(config: DictConfig) -> dict[str, Any]:
    """The same with the ranges that options declare."""
    try:
        content = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key} cannot be resolved: {str(error).splitlines()[0]}") from error
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def without_ranges(content: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        str(key): without_ranges(value) if isinstance(value, Mapping) else value
        for key, value in content.items()
        if key != RANGES
    }


def leaves(content: Content, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All settings as (dotted path, value); a list counts as a value."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
