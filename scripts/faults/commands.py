"""Wrong commands, drawn from the grammar with the mistakes that people make, and right ones, which must do what they say.

A wrong command ends with exit code 2 and one screen that names what is wrong, and writes nothing. Two right ones that differ in
one setting must have different results.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from faults.grammar import OF_SWEEPS, groups, options, settings
from faults.one_process import Left, run_all
from faults.right_commands import PAIRS, Pair
from faults.trial import Trial

COUNT = 800

#: Every so many trials one is a right command.
RIGHT_EVERY = 5

#: What fits on one screen, and what a mistake may cost where the program is loaded.
MOST_LINES, MOST_CPU_SECONDS = 24, 2.0

#: Added to a command that is no sweep, so that one that is taken for right is soon over.
SHORT = "trainer=smoke"

#: Settings whose text is a name of the user's own, or a place: a typo in it is none that can be seen.
FREE_TEXT = ("data.root", "resume", "note", "sweep", "executor.address", "executor.partition", "executor.account", "trust")

#: Settings that take what other numbers do not.
ALLOW_NEGATIVE = ("optimizer.beta2_decay",)


class Wrong(NamedTuple):
    """A wrong command; of each of the `says` one word must be on its screen."""

    kind: str
    words: tuple[str, ...]
    says: tuple[tuple[str, ...], ...]


Maker = Callable[[random.Random], Wrong]


# -- mistakes ----------------------------------------------------------------------------------------------------------------


def typo(drawn: random.Random, word: str) -> str:
    """The word with a letter left out, doubled, changed or swapped with the next, as fingers do."""
    place = drawn.randrange(len(word))
    others = [
        word[:place] + word[place + 1 :],
        word[:place] + word[place] + word[place:],
        word[:place] + drawn.choice("abcdefghijklmnopqrstuvwxyz") + word[place + 1 :],
        word[: max(place - 1, 0)] + word[max(place - 1, 0) : place + 1][::-1] + word[place + 1 :],
    ]
    return drawn.choice([other for other in others if other and other != word] or [f"{word}{word[-1]}"])


def mistyped_option(drawn: random.Random) -> Wrong:
    group = drawn.choice(groups())
    option = drawn.choice(options(group))
    wrong = typo(drawn, option)
    while wrong in options(group) or not re.fullmatch(r"\w+", wrong):
        wrong = typo(drawn, option)
    sweep = ("-m", "seed=0,1") if group in OF_SWEEPS else ()
    return Wrong("mistyped option", (*sweep, f"{group}={wrong}"), ((f"{group}={wrong}",), (option,)))


def mistyped_key(drawn: random.Random) -> Wrong:
    setting = drawn.choice(settings())
    known = {other.path for other in settings()}
    wrong = setting.path.removesuffix(setting.key) + typo(drawn, setting.key)
    while wrong in known or wrong in groups() or not re.fullmatch(r"[\w.]*[a-z_]\w*", wrong):
        wrong = setting.path.removesuffix(setting.key) + typo(drawn, setting.key)
    return Wrong("mistyped key", (*setting.words, f"{wrong}={as_text(setting.value)}"), ((wrong,), (setting.path,)))


def mistyped_group(drawn: random.Random) -> Wrong:
    setting = drawn.choice([setting for setting in settings() if "." in setting.path])
    group, _, rest = setting.path.partition(".")
    wrong = typo(drawn, group)
    while wrong in groups():
        wrong = typo(drawn, group)
    named = (setting.path, f"{group}.")  # in a sweep the nearest of what all its jobs have
    return Wrong("mistyped group", (*setting.words, f"{wrong}.{rest}={as_text(setting.value)}"), ((wrong,), named))


def missing_group(drawn: random.Random) -> Wrong:
    tops = {setting.path for setting in settings() if "." not in setting.path} | set(groups())
    setting = drawn.choice([s for s in settings() if "." in s.path and s.key not in tops])
    return Wrong(
        "missing group", (*setting.words, f"{setting.key}={as_text(setting.value)}"), ((setting.key,), (setting.path,))
    )


def wrong_type(drawn: random.Random) -> Wrong:
    setting = drawn.choice([setting for setting in settings() if setting.path != "trust"])
    if isinstance(setting.value, bool):
        value = drawn.choice(["maybe", "2", "[true]", "{a:1}", "yes!"])
    elif isinstance(setting.value, (int, float)):
        value = drawn.choice(["fast", "[[1]]", "{a:1}", "true", "1.2.3", "1e", "10%"])
    elif isinstance(setting.value, list):
        value = drawn.choice(["3.5", "{a:1}", "[[1,2]]", "[{a:1}]", "true"])
    else:
        value = drawn.choice(["{a:1}", "[{a:1}]", "[[[1]]]"])
    return Wrong("wrong type", (*setting.words, f"{setting.path}={value}"), ((setting.path,),))


def out_of_range(drawn: random.Random) -> Wrong:
    numbers = [s for s in settings() if isinstance(s.value, (int, float)) and not isinstance(s.value, bool)]
    setting = drawn.choice([setting for setting in numbers if setting.path not in ALLOW_NEGATIVE])
    value = drawn.choice(["-1", "-1e-9", "nan", "inf", "-inf", "1e999"])
    return Wrong("out of range", (*setting.words, f"{setting.path}={value}"), ((setting.path,),))


def mistyped_choice(drawn: random.Random) -> Wrong:
    texts = [s for s in settings() if isinstance(s.value, str) and s.path not in FREE_TEXT and not s.path.endswith("sampler")]
    setting = drawn.choice(texts)
    wrong = typo(drawn, setting.value)
    return Wrong("mistyped value", (*setting.words, f"{setting.path}='{wrong}'"), ((setting.path,), (setting.value, "add -m")))


def other_syntax(drawn: random.Random) -> Wrong:
    group = drawn.choice([group for group in groups() if group not in OF_SWEEPS])
    option = drawn.choice(options(group))
    forms = [
        (f"--{group}", option),
        (f"--{group}={option}",),
        (f"-{group}={option}",),
        (group, option),
        (f"{group}:{option}",),
        (f"{group}.{option}",),
        (f"{group}=={option}",),
        (f"{group}/{option}",),
        (f"{group}=({option})",),
        (f"{group}={{{option}}}",),
        (f"+{group}={option}",),
        (f"++{group}={option}",),
        (f"~{group}",),
        (option,),
    ]
    return Wrong("syntax of other programs", drawn.choice(forms), ((group, option),))


def absent_setting(drawn: random.Random) -> Wrong:
    """A setting of one option under another one, which would need a +, or is not what was meant."""
    setting = drawn.choice([s for s in settings() if s.words and not s.path.startswith(("trainer.", "reg.", "executor."))])
    group = setting.words[-1].partition("=")[0]
    having = {s.words[-1] for s in settings() if s.words and s.path == setting.path}
    others = [f"{group}={option}" for option in options(group) if f"{group}={option}" not in having]
    if not others or not setting.path.startswith(f"{group}."):
        return absent_setting(drawn)
    words = (*setting.words[:-1], drawn.choice(others), f"{setting.path}={as_text(setting.value)}")
    return Wrong("setting of another option", words, ((setting.path,), tuple(word.partition("=")[2] for word in having)))


def not_chosen(drawn: random.Random) -> Wrong:
    setting = drawn.choice([setting for setting in settings() if setting.path.startswith("reg.")])
    name = setting.path.split(".")[1]
    others = [option for option in options("reg") if option not in ("none", name)]
    chosen = drawn.choice([(), (f"reg={drawn.choice(others)}",), (f"reg=[{','.join(drawn.sample(others, 2))}]",)])
    return Wrong(
        "regularizer not chosen",
        (*chosen, f"{setting.path}={as_text(setting.value)}"),
        ((setting.path,), (f"reg={name}", name)),
    )


def brackets(drawn: random.Random) -> Wrong:
    setting = drawn.choice([setting for setting in settings() if isinstance(setting.value, list) and setting.value])
    whole = as_text(setting.value)
    forms = [whole[:-1], whole[1:-1], whole[1:], f"({whole[1:-1]})", f"{whole}]"]
    value = drawn.choice([*forms, whole.replace(",", ";")] if "," in whole else forms)
    return Wrong("brackets", (*setting.words, f"{setting.path}={value}"), ((setting.path,),))


def several_values(drawn: random.Random) -> Wrong:
    if drawn.random() < 0.3:
        group = drawn.choice([group for group in groups() if len(options(group)) > 1])
        word = f"{group}={','.join(drawn.sample(options(group), 2))}"
        return Wrong("several values without -m", (word,), ((word.partition("=")[0],), ("-m",)))
    setting = drawn.choice([setting for setting in settings() if "-m" not in setting.words])
    text = as_text(setting.value)
    return Wrong("several values without -m", (*setting.words, f"{setting.path}={text},{text}"), ((setting.path,), ("-m",)))


def no_value(drawn: random.Random) -> Wrong:
    setting = drawn.choice(settings())
    if drawn.random() < 0.3:
        group = drawn.choice(groups())
        return Wrong("no value", (f"{group}=",), ((group,),))
    return Wrong("no value", (*setting.words, f"{setting.path}="), ((setting.path,),))


def twice(drawn: random.Random) -> Wrong:
    group = drawn.choice([group for group in groups() if len(options(group)) > 1 and group not in OF_SWEEPS])
    first, second = drawn.sample(options(group), 2)
    if group == "reg" and drawn.random() < 0.5:
        return Wrong("given twice", (f"reg=[{first},{second},{first}]",), (("reg",),))
    return Wrong("given twice", (f"{group}={first}", f"{group}={second}"), ((f"{group}={first}",), (f"{group}={second}",)))


def unicode_letters(drawn: random.Random) -> Wrong:
    group = drawn.choice([group for group in groups() if group not in OF_SWEEPS])
    option = drawn.choice(options(group))
    forms = [
        ("\u2013m", f"{group}={option}"),
        ("\u2014multirun", f"{group}={option}"),
        ("\u2212m", f"{group}={option}"),
        (f"\u2013\u2013{group}={option}",),
        (f"{group}\uff1d{option}",),
        (f"{group}=\u201c{option}\u201d",),
        (f"{group}=\u00a0{option}",),
        (f"{group}={option}\u200b",),
        ("optimizer.lr=1e\u22123",),
        ("optimizer.lr=1e\u20133",),
        ("optimizer.lr=0\u066b1",),
        ("optimizer.betas=\uff3b0.9,0.99\uff3d",),
        (f"{group}.{option}\u2025=1",),
    ]
    words = drawn.choice(forms)
    named = [word for word in words if not word.isascii()]  # as they are, or with escapes where a screen shows nothing
    return Wrong("letters of no keyboard", words, ((*named, *(ascii(word)[1:-1] for word in named)),))


def spaces(drawn: random.Random) -> Wrong:
    setting = drawn.choice([setting for setting in settings() if setting.words and "-m" not in setting.words])
    text = as_text(setting.value)
    forms = [(setting.path, "=", text), (f"{setting.path}=", text), (setting.path, f"={text}"), (setting.path, text)]
    return Wrong("spaces around =", (*setting.words, *drawn.choice(forms)), ((setting.path, text),))


def absent_file(drawn: random.Random) -> Wrong:
    forms = [
        (("resume=runs/nowhere",), "runs/nowhere"),
        (("-m", "resume=nowhere"), "nowhere"),
        (("data=image_folder", "data.root=nowhere"), "nowhere"),
        (("data=image_folder",), "data.root"),
        (("--config-dir", "nowhere"), "nowhere"),
        (("--config-dir=nowhere",), "nowhere"),
        (("experiment=nowhere",), "nowhere"),
        (("hydra.run.dir=/proc/nowhere",), "/proc/nowhere"),
        (("-m", "seed=0,1", "hydra.sweep.dir=/proc/nowhere"), "/proc/nowhere"),
        (("report", "nowhere"), "nowhere"),
        (("evaluate", "nowhere"), "nowhere"),
        (("export", "nowhere", "--to", "mlflow"), "nowhere"),
        (("report", "."), "no run has begun"),
        (("evaluate", "."), "is no run folder"),
    ]
    words, named = drawn.choice(forms)
    return Wrong("a file that is not there", words, ((named,),))


#: Settings that contradict each other, with what must be named; the tests of the schema have all of them.
CONTRADICTIONS = (
    ("optimizer=lbfgs data.batch_size=64", "data.batch_size"),
    ("optimizer=gd trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches"),
    ("trainer.max_epochs=null trainer.max_steps=null", "trainer.max_epochs"),
    ("optimizer=rprop schedule=cosine", "schedule=constant"),
    ("model.batch_norm=true model.layer_norm=true", "model.layer_norm"),
    ("reg=[sam,asam]", "asam"),
    ("reg=[ema,swa]", "swa"),
    ("augment=mixup reg=manifold_mixup", "manifold_mixup"),
    ("model=linear optimizer=muon", "optimizer=muon"),
    ("reg=magnitude_pruning reg.magnitude_pruning.rounds=7 trainer.max_epochs=5", "reg.magnitude_pruning.rounds"),
    ("stop_at_target=true", "target"),
    ("cv=3", "cv"),
    ("fold=1", "fold"),
    ("cv=3 fold=3", "fold"),
    ("cv=3 fold=0 data=digits data.val_samples=20", "data.val_samples"),
    ("schedule.warmup_steps=100000", "schedule.warmup_steps"),
    ("data.train_samples=3", "data.train_samples"),
    ("trainer.gradient_clip_algorithm=value", "trainer.gradient_clip_val"),
    ("-m seeds=3 seed=0,1", "seed"),
    ("-m cv=3 fold=0,1", "fold"),
    ("-m confirm=3 optimizer=sgd,adam", "compare"),
    ("-m compare=optimizer optimizer=adam", "compare"),
    ("-m search=tpe", "search"),
    ("-m search=tpe search.trials=0 optimizer.lr=interval(0.01,0.1)", "search.trials"),
    ("-m executor=inline executor.slots=2 seed=0,1", "executor.slots"),
    ("-m on_failure=stop max_failures=2 seed=0,1", "max_failures"),
    ("-m resolve=0.01 seed=0,1", "resolve"),
    ("-m fuse=on seed=0,1 optimizer=external optimizer.name=soap", "fuse"),
    ("-m prune=asha prune.min_epochs=100 seed=0,1", "prune.min_epochs"),
    ("-m sweep=a hydra.sweep.dir=b seed=0,1", "sweep"),
    ("-m hydra.run.dir=x seed=0,1", "hydra.run.dir"),
    ("-m seed=0,1 optimizer.lr=interval(0.1,1)", "optimizer.lr"),
    ("seeds=3", "-m"),
    ("search=tpe", "-m"),
    ("dry_run=true", "-m"),
)


def contradiction(drawn: random.Random) -> Wrong:
    text, named = drawn.choice(CONTRADICTIONS)
    return Wrong("contradiction", tuple(text.split()), ((named,),))


MAKERS: Sequence[Maker] = (
    mistyped_option,
    mistyped_key,
    mistyped_group,
    missing_group,
    wrong_type,
    out_of_range,
    mistyped_choice,
    other_syntax,
    absent_setting,
    not_chosen,
    brackets,
    several_values,
    no_value,
    twice,
    unicode_letters,
    spaces,
    absent_file,
    contradiction,
)


# -- trials ------------------------------------------------------------------------------------------------------------------


def as_text(value: Any) -> str:
    """The value as a command says it."""
    if isinstance(value, (list, tuple)):
        return f"[{','.join(as_text(entry) for entry in value)}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def wrong_command(seed: int, number: int) -> Wrong:
    place = number - number // RIGHT_EVERY
    wrong = MAKERS[place % len(MAKERS)](random.Random(f"commands {seed} {number}"))
    first = wrong.words[0]
    if "-m" in wrong.words:
        return wrong._replace(words=(*wrong.words, "dry_run=true"))
    is_other = first in ("report", "evaluate", "export") or any(word.startswith("trainer") for word in wrong.words)
    return wrong if is_other else wrong._replace(words=(*wrong.words, SHORT))


def what_is_wrong(wrong: Wrong, left: Left) -> str | None:
    """Why the screen of a wrong command is not what it should be."""
    lines = left.errors.splitlines()
    shown = left.errors.strip()[-300:]
    if left.code != 2:
        return f"exit code {left.code}: {shown}"
    if "Traceback" in left.errors or len(lines) > MOST_LINES:
        return f"{len(lines)} lines: {shown}"
    missing = [says for says in wrong.says if not any(word in left.errors for word in says)]
    if missing:
        return f"does not say {' or '.join(missing[0])}: {shown}"
    if left.files:
        return f"wrote {', '.join(left.files[:3])}"
    if left.cpu_seconds > MOST_CPU_SECONDS and wrong.words[0] != "evaluate":  # which imports torch
        return f"took {left.cpu_seconds:.1f} s of CPU"
    return None


def results(folder: Path) -> list[str]:
    """What a run or the jobs of a sweep computed: curves and final figures."""
    names = ("metrics.csv", "metrics.json")
    return [file.read_text() for name in names for file in sorted((folder / "out").glob(f"**/{name}"))]


def does_nothing(pair: Pair, folders: Sequence[Path], left: Sequence[Left]) -> str | None:
    """Why a right command does not do what it says."""
    failed = [one for one in left if one.code != 0]
    if failed:
        return f"exit code {failed[0].code}: {failed[0].errors.strip()[-300:]}"
    if results(folders[0]) == results(folders[1]):
        return f"{pair.first} and {pair.second} give the same results"
    return None


def trials(seed: int, numbers: Sequence[int], folder: Path) -> Iterator[Trial]:
    pairs = {n: PAIRS[(n // RIGHT_EVERY) % len(PAIRS)] for n in numbers if n % RIGHT_EVERY == RIGHT_EVERY - 1}
    wrong = {n: wrong_command(seed, n) for n in numbers if n not in pairs}
    left = run_all({str(n): one.words for n, one in wrong.items()}, folder / "wrong")
    commands = {f"{n} {side}": pair.words(side) for n, pair in pairs.items() for side in (0, 1)}
    right = run_all(commands, folder / "right")
    places = {name: folder / "right" / str(place) for place, name in enumerate(commands)}
    for number in numbers:
        if number in pairs:
            names = [f"{number} {side}" for side in (0, 1)]
            failure = does_nothing(pairs[number], [places[name] for name in names], [right[name] for name in names])
            yield Trial("right commands", " ".join(pairs[number].words(1)), failure)
        else:
            failure = what_is_wrong(wrong[number], left[str(number)])
            yield Trial(wrong[number].kind, " ".join(wrong[number].words), failure)
