"""What Hydra says of a command that does not compose, as a mistake with the nearest names that would be right."""

import difflib
import re
from collections.abc import Sequence

import hydra
import yaml
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
    siblings = [path for path in known if path.startswith(f"{parts[0]}.")]
    owners = [option for option in options(parts[0]) if key in _settings_of(parts[0], option)]
    whole = [path for path in known if path.endswith(f".{key}")]
    top = [*groups(), *(path for path in known if "." not in path)]
    nearest = difflib.get_close_matches(key, known if len(parts) > 1 else top, n=1, cutoff=0.5)
    if owners:
        notes = [f"it is a setting of {parts[0]}={', '.join(owners)}"]
    elif whole:  # the group is missing
        notes = [f"did you mean {' or '.join(whole)}?"]
    elif parts[0] in options("reg"):
        notes = [f"did you mean reg.{key}? it needs reg={parts[0]}"]
    else:
        notes = [f"did you mean {nearest[0]}?"] if nearest else []
    return "\n".join([f"{key} is no setting of this configuration", *notes, f"possible here: {', '.join(siblings or top)}"])


def _settings_of(group: str, option: str) -> list[str]:
    """The settings of an option by dotted path, those of the option that it builds on among them; none of `reg`."""
    content = yaml.safe_load((CONF / group / f"{option}.yaml").read_text()) or {}
    above = [path for base in content.get("defaults", ()) if isinstance(base, str) for path in _settings_of(group, base)]
    settings = content.get(group, content)  # an option may set other groups too
    return [*above, *(f"{group}.{key}" for key in settings if key != "defaults")]


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
