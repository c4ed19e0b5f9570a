"""The groups of conf/ and their options, from the names of the files: reading them takes Hydra half a second."""

import difflib
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]

#: In an installed Ockham conf/ lies in the package, where the wheel has put it; in a checkout at the top level.
CONF = next(place for place in (_PACKAGE / "conf", _PACKAGE.parents[1] / "conf") if place.is_dir())


def groups() -> list[str]:
    """The groups that a command chooses an option of."""
    return sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra")


def options(group: str) -> list[str]:
    """The options of a group."""
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def unknown_option(group: str, option: str) -> str:
    """The mistake of an option that does not exist, with the nearest that does."""
    nearest = difflib.get_close_matches(option.removesuffix(".yaml"), options(group), n=1)
    hint = [f"did you mean {group}={nearest[0]}?"] if nearest else []
    return "\n".join([f"{group}={option} is not known", *hint, f"{group} is one of: {', '.join(options(group))}"])
