"""What Hydra says of a command that does not compose, as a mistake with the nearest names that would be right."""

import difflib
import re
from collections.abc import Sequence

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from ockham import schema
from ockham.command.options import CONF, groups, options, unknown_option


def composition_error(error: Exception, arguments: Sequence[str]) -> str:
    """What is wrong with the command line."""
    message = str(error).strip()
    missing = re.search(r"Could not (?:find|load) '([\w/@.-]+)'", message)
    if missing:
        group, _, option = missing.group(1).rpartition("/")
        return unknown_option(group, option)
    absent = re.search(r"Could not override '([\w.@/-]+)'|Key '([\w.-]+)' is not in struct\s+full_key: ([\w.]+)", message)
    if absent:
        return _unknown_key(absent.group(1) or absent.group(3), arguments)
    no_group = re.search(r"[Cc]ould not override '?([\w/]+)'?\.?\s*\n?No match in the defaults list", message)
    if no_group:
        return _unknown_key(no_group.group(1), arguments)
    if "missing EQUAL" in message:
        return f"{message.splitlines()[0]}: a word of the command is group=option or key=value"
    return message


def _unknown_key(key: str, arguments: Sequence[str]) -> str:
    """`key` is no setting of the configuration that the other overrides make."""
    known = _known_settings(key, arguments)
    parts = key.split(".")
    if parts[0] == "reg" and len(parts) > 2 and parts[1] in options("reg"):
        regularizers = {path.split(".")[1] for path in known if path.startswith("reg.")}
        if parts[1] not in regularizers:
            choose = f"'reg=[{','.join(sorted([*regularizers, parts[1]]))}]'" if regularizers else f"reg={parts[1]}"
            return f"{key} is set, but {parts[1]} is not chosen\nadd {choose}"
    if len(parts) == 1:
        known = [*groups(), *(path for path in known if "." not in path)]
    siblings = [path for path in known if path.startswith(f"{parts[0]}.")]
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    notes = [f"did you mean {nearest[0]}?"] if nearest else []
    candidates = siblings if len(parts) > 1 and siblings else known
    return "\n".join([f"{key} is no setting of this configuration", *notes, f"possible here: {', '.join(candidates)}"])


def _known_settings(key: str, arguments: Sequence[str]) -> list[str]:
    """The settings that exist when the offending override and all flags are left out."""
    others = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
    parsed = OverridesParser.create().parse_overrides([a for a in others if a.partition("=")[0].lstrip("+~") != key])
    simple = [str(o.input_line) for o in parsed if not o.is_sweep_override() and not (o.key_or_group or "").startswith("hydra")]
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            config = hydra.compose("train", simple)
    except (HydraException, OmegaConfBaseException):
        return []
    return [path for path, _ in schema.leaves(schema.container(config)) if "_target_" not in path]
