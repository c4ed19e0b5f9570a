"""The words of a command by themselves and against each other, before anything is composed.

What is checked here cannot be seen in the configuration: that a setting was given at all, or how it was written.
"""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException

from ockham.command.options import groups, options, unknown_option
from ockham.errors import UserError
from ockham.schema import SWEEP_SETTINGS

#: Flags and settings with which options may come from folders other than conf/.
OTHER_FOLDERS = ("--config-dir", "-cd", "--config-path", "-cp", "hydra.searchpath")

#: Settings that a sweep has one value of.
ONE_VALUE = (*SWEEP_SETTINGS, "cv", "objective", "resume", "trust", "note", "target", "stop_at_target")

#: Settings that only Ockham's own launcher knows.
OF_LAUNCHER = ("executor", "fuse", "retries", "on_failure", "max_failures")

#: Values that switch a setting off.
OFF = ("null", "false", "none")

#: The first words of commands that train nothing (train.py).
OTHER_COMMANDS = ("report", "evaluate", "export")

#: File names of most systems have room for 255 bytes.
LONGEST_NAME = 200


def check_arguments(arguments: Sequence[str], *, multirun: bool) -> None:
    """Raises UserError for a word that cannot be read, an option that is not there, or settings that exclude each other."""
    _check_flags(arguments)
    only_conf = not any(argument.partition("=")[0].lstrip("+") in OTHER_FOLDERS for argument in arguments)
    overrides = _check_overrides([word for word in arguments if "=" in word or word.startswith("~")], only_conf=only_conf)
    given = {override.key_or_group: override for override in overrides}
    if multirun:
        _check_sweep(given, only_conf=only_conf)
    else:
        _check_single(given)
    if _is_set(given, "cv") and _is_set(given, "data.val_samples"):
        raise UserError("data.val_samples changes nothing with cv: a fold is the validation split; leave one of them out")


# -- word by word ------------------------------------------------------------------------------------------------------------


def _check_flags(arguments: Sequence[str]) -> None:
    """Raises UserError for a flag that Hydra does not have, and for a word that is neither a flag, its value nor an override.

    Hydra would take such words for overrides, or print the list of its flags.
    """
    actions = {flag: action for action in get_args_parser()._actions for flag in action.option_strings}
    follows_flag = False
    for before, word, after in zip(["", *arguments], arguments, [*arguments[1:], ""], strict=False):
        flag, equals, _ = word.partition("=")
        if word.startswith("-"):
            whole = [name for name in actions if name == flag or (flag.startswith("--") and name.startswith(flag))]
            if not whole:
                raise UserError(_unknown_flag(word, list(actions)))
            follows_flag = not equals and actions[whole[0]].nargs != 0
        elif not follows_flag and not equals and not word.startswith("~"):
            raise UserError(_no_override(before, word, after))
        else:
            follows_flag = False


def _unknown_flag(word: str, flags: Sequence[str]) -> str:
    setting = word.lstrip("-")
    if re.split(r"[.=]", setting)[0] in groups():
        return f"{word} is no flag: settings have no dashes, as in {setting if '=' in setting else f'{setting}=...'}"
    nearest = difflib.get_close_matches((word if word.startswith("--") else f"-{word}").lower(), flags, n=1)
    return f"{word} is no flag" + (f": did you mean {nearest[0]}?" if nearest else f"\nflags are: {', '.join(flags)}")


def _no_override(before: str, word: str, after: str) -> str:
    """What is wrong with a word without =, from the words around it."""
    foreign = next((letter for letter in word if not letter.isascii()), None)
    if foreign is not None:
        return f"{word} cannot be read: '{foreign}' is {unicodedata.name(foreign, 'not ASCII')}; write - and = in ASCII"
    if after.startswith("=") or before.endswith("="):
        return f"{word} stands by itself: leave no space around ="
    key, colon, value = word.partition(":")
    if colon:
        return f"{word} cannot be read: write {key}={value}"
    if word in groups():
        return f"{word} names no option: write {word}={after if after in options(word) else '<option>'}"
    nearest = difflib.get_close_matches(word, OTHER_COMMANDS, n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    return f"{word} cannot be read: a word of the command is group=option or key=value{hint}"


def _check_overrides(words: Iterable[str], *, only_conf: bool) -> list[Override]:
    overrides = [parse(word) for word in words if not word.startswith("-")]
    keys = {override.key_or_group for override in overrides}
    _check_chosen_once(overrides)
    for override in overrides:
        if len(override.key_or_group) > LONGEST_NAME:  # Hydra looks for a folder of that name
            raise UserError(f"{override.key_or_group} is no setting of this configuration")
        if override.is_delete():
            _check_deletion(override.key_or_group, keys)
        elif _value_text(override) == "":
            raise UserError(
                f"{override.input_line} has no value: write {override.key_or_group}=<value>, with no space around ="
            )
        elif override.package is None and override.key_or_group in groups():
            _check_option(override, only_conf=only_conf)
    return overrides


def _check_chosen_once(overrides: Sequence[Override]) -> None:
    """Raises UserError for a group with two options, of which Hydra would take the last."""
    words: dict[tuple[str, str | None], str] = {}
    for override in overrides:
        place, word = (override.key_or_group, override.package), str(override.input_line)
        if place in words and place[0] in groups() and not override.is_delete():
            both = ",".join(dict.fromkeys(text.partition("=")[2].strip("[]") for text in (words[place], word)))
            instead = f", or write 'reg=[{both}]' for both" if place[0] == "reg" else ""
            raise UserError(f"{words[place]} and {word} choose twice: leave one of them out{instead}")
        words[place] = word


def unused_words(arguments: Sequence[str]) -> list[str]:
    """Settings that a later word sets again: the last one counts, so that a script can add to a command."""
    last = {word.partition("=")[0].lstrip("+"): word for word in arguments if "=" in word and not word.startswith("-")}
    return [
        f"{word} changes nothing: {last[key]} follows"
        for word in arguments
        if (key := word.partition("=")[0].lstrip("+")) in last and word != last[key]
    ]


def parse(word: str) -> Override:
    """Raises UserError for what is no override, and says why."""
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException as error:
        raise UserError(f"{word} cannot be read: {_syntax_error(word, str(error).splitlines()[0])}") from error


def _syntax_error(word: str, message: str) -> str:
    value = word.partition("=")[2]
    plain = re.sub(r"'[^']*'|\"[^\"]*\"", "", value)  # without what stands in quotes
    foreign = next((letter for letter in re.sub(r"'[^']*'|\"[^\"]*\"", "", word) if not letter.isascii()), None)
    if foreign is not None:
        name = unicodedata.name(foreign, "not ASCII")
        return f"'{foreign}' is {name}; write names in Latin letters, and put a text with others into quotes"
    if any(plain.count(opening) != plain.count(closing) for opening, closing in ("[]", "{}", "()")):
        return "its brackets do not match; put the word into quotes where the shell takes them for its own"
    if "'" in plain or '"' in plain:
        return "a quote is not closed"
    if "=" in plain:
        return 'a value that holds = stands in quotes, as in \'grids=[["optimizer=adam","optimizer.lr=1,2"]]\''
    return message


def _check_deletion(key: str, keys: set[str]) -> None:
    """A class of the user's own may lack a setting; one of Ockham's would silently take the default of its constructor."""
    group, _, setting = key.partition(".")
    if group == "hydra" or group.startswith("hydra/"):
        return
    owner = ".".join(key.split(".")[:2]) if group == "reg" else group
    if not setting:
        none = f" ({group}=none for nothing)" if "none" in options(group) else ""
        raise UserError(f"~{key} is not possible: choose an option with {group}=...{none}")
    if f"{owner}._target_" not in keys:
        raise UserError(f"~{key} is not possible: set {key}=... to another value, or choose another option of {group}")


def _check_option(override: Override, *, only_conf: bool) -> None:
    group = override.key_or_group
    if override.is_add() and group != "experiment":  # of which there is none by default
        raise UserError(f"{override.input_line} is not possible: a run has one {group} already; leave the + out")
    for value in _values(override):
        if value == [] or (isinstance(value, list) and len(value) > len({str(option) for option in value})):
            problem = "names an option twice: leave one out" if value else f"names no option: set {group}=none for nothing"
            raise UserError(f"{group}={_text(value)} {problem}")
        if isinstance(value, list) and group not in ("reg", "experiment"):
            raise UserError(f"{group}={_text(value)} is not possible: choose one option of {', '.join(options(group))}")
        for option in value if isinstance(value, list) else [value]:
            if option is None or isinstance(option, dict):
                raise UserError(f"{group}={_text(value)} is not possible: choose an option of {', '.join(options(group))}")
            outside = not re.fullmatch(r"[\w-]+(/[\w-]+)*", str(option))
            if outside or (only_conf and str(option) not in options(group)):
                raise UserError(unknown_option(group, str(option)))


def _values(override: Override) -> list[Any]:
    """Every value that the override names; none for a glob, which takes what is there."""
    if not override.is_sweep_override():
        return [override.value()]
    if override.value_type not in (ValueType.CHOICE_SWEEP, ValueType.SIMPLE_CHOICE_SWEEP):
        return []
    return [parse(f"_={text}").value() for text in override.sweep_string_iterator()]


def _text(value: Any) -> str:
    if value is None:
        return "null"
    return f"[{','.join(_text(entry) for entry in value)}]" if isinstance(value, list) else str(value)


# -- against each other ------------------------------------------------------------------------------------------------------


def _is_set(given: Mapping[str, Override], key: str) -> bool:
    return key in given and _value_text(given[key]) not in OFF


def _value_text(override: Override) -> str:
    return str(override.input_line).partition("=")[2]


def _of(given: Mapping[str, Override], names: Sequence[str]) -> list[str]:
    """The words that set something of these groups and settings."""
    return [str(override.input_line) for key, override in given.items() if re.split(r"[./]", key)[0] in names]


def _check_single(given: Mapping[str, Override]) -> None:
    """A run by itself has no settings of a sweep, and one value of each setting."""
    for override in given.values():
        if override.is_sweep_override():
            raise UserError(
                f"{override.input_line} names several values: add -m to run each of them, or write [...] for a list"
            )
    for_sweeps = [word for word in _of(given, SWEEP_SETTINGS) if word.partition("=")[2] not in OFF or word == "report=false"]
    if _is_set(given, "cv") and not _is_set(given, "fold"):
        for_sweeps.append(str(given["cv"].input_line))
    for_sweeps += [word for word in _of(given, ["hydra"]) if word.lstrip("+").startswith(("hydra.sweep.", "hydra/sweeper="))]
    if for_sweeps and not _is_set(given, "resume"):  # a run that continues names what it may change
        raise UserError(f"{for_sweeps[0]} is for sweeps: add -m")


def _check_sweep(given: Mapping[str, Override], *, only_conf: bool) -> None:
    if "compare" in given and given["compare"].is_sweep_override():
        value = _value_text(given["compare"])
        raise UserError(f"compare={value} names several values: compare=[{value}] makes every combination of them an arm")
    for key, override in given.items():
        if key.partition(".")[0] in ONE_VALUE and override.is_sweep_override():
            raise UserError(f"{override.input_line} names several values, but a sweep has one of {key}: start a sweep for each")
    for one, other, reason in (
        ("seeds", "seed", "each configuration runs under every one of seeds"),
        ("cv", "fold", "a sweep runs all folds"),
        ("hydra.sweep.dir", "sweep", "the folder has been given"),
    ):
        if _is_set(given, one) and _is_set(given, other):
            raise UserError(f"{other} changes nothing with {one}: {reason}; leave one of them out")
    if "hydra.run.dir" in given:
        raise UserError("hydra.run.dir is for a single run: name a sweep with sweep=<name>, or its folder with hydra.sweep.dir")
    if _is_set(given, "sweep"):
        _check_name(_value_text(given["sweep"]))
    for group, known_by in (("hydra/sweeper", (*SWEEP_SETTINGS, "cv")), ("hydra/launcher", OF_LAUNCHER)):
        unused = _of(given, known_by)
        if unused and group in given and _value_text(given[group]) != "ockham":
            raise UserError(f"{unused[0]} changes nothing with {given[group].input_line}: leave one of them out")
    if "grids" in given:
        grids: Any = given["grids"].value()
        for grid in grids or []:
            words = [word for word in grid if isinstance(word, str)] if isinstance(grid, list) else []
            _check_overrides(words, only_conf=only_conf)


def _check_name(name: str) -> None:
    if not re.fullmatch(r"\w[\w.-]*", name) or len(name) > LONGEST_NAME:
        raise UserError(
            f"sweep={name} is not possible: a name of up to {LONGEST_NAME} letters, digits, '.', '_' and '-' that begins with "
            f"a letter or digit"
        )
