"""Whether a configuration makes sense, checked before torch is imported. Every error names the override to change."""

from ockham.schema.consistency import check_consistency, check_sweep_consistency, warnings
from ockham.schema.content import RANGES, Content, container, leaves, resolved, without_ranges
from ockham.schema.fields import ACTIVATIONS, FIELDS, SWEEP_SETTINGS, check_fields, field_of

__all__ = [
    "ACTIVATIONS",
    "FIELDS",
    "RANGES",
    "SWEEP_SETTINGS",
    "Content",
    "check",
    "check_sweep",
    "container",
    "field_of",
    "leaves",
    "resolved",
    "without_ranges",
]


def check(content: Content) -> list[str]:
    """Raises UserError for a setting that cannot be right; returns warnings about those that probably are not."""
    check_fields(content)
    check_consistency(content)
    return list(warnings(content))


def check_sweep(content: Content) -> None:
    """The settings of a sweep as a whole, whatever its jobs are. Raises UserError as `check` does."""
    check_fields(content)
    check_sweep_consistency(content)
