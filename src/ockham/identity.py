"""What makes two runs the same configuration: the one answer for sweeps, tables, reports, TensorBoard and runs that continue.

A configuration is every setting that a run computes with. Runs that differ in REPLICATES alone repeat one configuration. Left
out is what says where files lie and what is written beside the results, and what concerns a sweep as a whole. No torch here.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ockham.core.datasets import SIZES
from ockham.schema import RANGES, SWEEP_SETTINGS, Content, leaves

#: Settings that may change when a run continues: how long it is, where it trains, where its data lie.
CONTINUED_WITH = ("trainer.max_epochs", "trainer.max_steps", "trainer.accelerator", "data.root")

#: Settings that repeat a configuration.
REPLICATES = ("seed", "fold")

#: Settings and groups with which nothing is computed.
NOT_COMPUTED = ("resume", "trust", "note", "logger", *SWEEP_SETTINGS)


def computed(content: Content) -> dict[str, Any]:
    """The settings by dotted path that decide what a run computes, seed and fold among them."""
    kept = {path: value for path, value in leaves(content) if path.partition(".")[0] not in NOT_COMPUTED}
    kept = {path: value for path, value in kept.items() if f".{RANGES}." not in path}
    if kept.get("data._target_") in SIZES:  # their content is fixed by checksums: the root only says where they lie
        kept.pop("data.root", None)
    if "measure" in kept:
        kept["measure"] = sorted(kept["measure"])
    return kept


def configuration(content: Content) -> dict[str, Any]:
    """The settings that all replicates of a run share, by dotted path."""
    return {path: value for path, value in computed(content).items() if path not in REPLICATES}


def is_of_configuration(path: str) -> bool:
    """Whether a setting or group may tell configurations apart."""
    return path not in REPLICATES and path.partition(".")[0] not in NOT_COMPUTED


def run_key(content: Content) -> str:
    """Equal for runs that compute the same, whatever words they were asked for with."""
    return digest(computed(content))


def checkpoint_key(content: Content) -> str:
    """Equal for runs that may continue from one another's checkpoints."""
    return digest({path: value for path, value in computed(content).items() if path not in CONTINUED_WITH})


def configuration_key(content: Content) -> str:
    """Equal for replicates of one configuration."""
    return digest(configuration(content))


def digest(content: Mapping[str, Any]) -> str:
    """A short hash of plain containers. Numbers that are equal count as equal: 1 and 1.0."""
    return hashlib.sha256(json.dumps(_canonical(content), sort_keys=True, default=str).encode()).hexdigest()[:16]


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _canonical(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(entry) for entry in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value
