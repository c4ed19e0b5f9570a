"""Folders, files and names from somebody who means harm: nothing of them runs, and nothing is written or read elsewhere.

In every trial a canary stands for what may not come to life, a folder for what may not be written, and a word for what may not
be read. What a command prints holds nothing that a terminal would obey.
"""

import io
import json
import os
import pickle
import random
import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from PIL import Image

from faults.one_process import Left, here, run_all
from faults.trial import Trial
from ockham.data import Mnist5k
from ockham.data.image_folder import EXTENSIONS, ImageFolder
from ockham.errors import UserError

COUNT = 420

TINY = (
    *("data=digits", "data.train_samples=200", "model.hidden=[8]", "trainer.max_epochs=2", "trainer.accelerator=cpu"),
    *("schedule=constant", "logger=csv"),
)
SWEEP = ("-m", *TINY, "executor=inline", "seed=0,1")

#: What stands in the environment and in a file elsewhere, and must not be shown.
SECRET = "correct-horse-battery-staple"

MOST_LINES = 24


class Place(NamedTuple):
    """The surroundings of a trial: copies of a run and a sweep, what must not be touched, and what must not come to be."""

    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def sweep(self) -> Path:
        return self.folder / "sweep"

    @property
    def victim(self) -> Path:
        return self.folder / "elsewhere"

    @property
    def canary(self) -> Path:
        return self.folder / "canary"


class Payload:
    """An object that makes the canary when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, (f"touch {self.canary}",)


Hostile = tuple[str, Sequence[str] | None]
"""What was put where, and the words of the command that meets it; None where the trial has met it by itself."""


# -- files that are read -----------------------------------------------------------------------------------------------------


def entry(drawn: random.Random, place: Place) -> Sequence[str]:
    """A command that reads a run folder."""
    return drawn.choice(
        [
            ["evaluate", str(place.run)],
            ["report", str(place.run), "--json"],
            [f"resume={place.run}", "trainer.max_epochs=3"],
            [*TINY, f"hydra.run.dir={place.run}"],
        ]
    )


def unfinished(place: Place) -> None:
    """The run stands before its end, so that it goes on."""
    (place.run / "metrics.json").unlink()
    (place.run / "status.json").unlink()


def pickled(drawn: random.Random, place: Place) -> Hostile:
    payload = Payload(place.canary)
    file = place.run / "checkpoints" / drawn.choice(["best.ckpt", "last.ckpt"])
    form = drawn.choice(["pickle", "torch", "legacy", "nested", "protocol 0"])
    if form == "pickle":
        file.write_bytes(pickle.dumps(payload))
    elif form == "protocol 0":
        file.write_bytes(pickle.dumps({"format": 2, "model": payload}, protocol=0))
    elif form == "nested":
        content = torch.load(file, weights_only=True)
        torch.save({**content, "optimizer": {"state": [payload]}}, file)
    else:
        torch.save(payload, file, _use_new_zipfile_serialization=form == "torch")
    if file.name == "last.ckpt":
        unfinished(place)
        return f"{form} in {file.name}", [*TINY, f"hydra.run.dir={place.run}"]
    return f"{form} in {file.name}", ["evaluate", str(place.run)]


TARGETS = (
    *("os.system", "builtins.exec", "builtins.eval", "subprocess.Popen", "posix.system", "torch.hub.load", "torch.load"),
    *("ockham.cli.os.system", "ockham.build.importlib.import_module", "torch.nn.Module.__init__", "torch.nn.modules.module.os"),
    *(
        "ockham..system",
        "ockham",
        "",
        "torch.optim.lr_scheduler.Counter",
        "torch.nn.functional.boolean_dispatch",
        "ockham.reg..",
    ),
    *(3, ["os.system"], {"_target_": "os.system"}, None, True),
)


def target(drawn: random.Random, place: Place) -> Hostile:
    """A class of somebody's own choice in the configuration of a run, or of a command."""
    path = drawn.choice(["model", "optimizer", "data", "augment", "schedule", "reg.l2", "logger", "trainer", "optimizer.more"])
    named = drawn.choice(TARGETS)
    if drawn.random() < 0.5:
        text = json.dumps(named).replace('"', "'").replace(": ", ":").replace(", ", ",")
        return f"{path}._target_={text}", [*TINY, f"++{path}._target_={text}", f"++{path}.command='touch {place.canary}'"]
    change_config(place, lambda content: put(content, path, {"_target_": named, "command": f"touch {place.canary}"}))
    words = entry(drawn, place)
    return f"{path}._target_={named} in config.yaml, {words[0]}", words


def change_config(place: Place, change: Callable[[dict[str, Any]], None]) -> None:
    """Change config.yaml, and take away the checksums that would tell of it."""
    from omegaconf import OmegaConf

    file = place.run / ".hydra" / "config.yaml"
    content: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    change(content)
    file.write_text(OmegaConf.to_yaml(content))
    without_checksums(place)


def without_checksums(place: Place) -> None:
    status = json.loads((place.run / "status.json").read_text())
    kept = {key: value for key, value in status.items() if key not in ("files", "sha256")}
    (place.run / "status.json").write_text(json.dumps(kept))


def put(content: dict[str, Any], path: str, value: dict[str, Any]) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        content = content.setdefault(parent, {})
    content[last] = {**content.get(last, {}), **value}


INTERPOLATIONS = (
    *(
        "${oc.env:OCKHAM_SECRET}",
        "${oc.decode:${oc.env:OCKHAM_SECRET}}",
        "${oc.create:{a:1}}",
        "${hydra:runtime.cwd}",
        "${now:%Y}",
    ),
    *("${eval:1+1}", "${oc.deprecated:seed}", "${seed}", "${.lr}", "${oc.select:seed}", "a ${oc.env:HOME} b"),
)


def interpolation(drawn: random.Random, place: Place) -> Hostile:
    text = drawn.choice(INTERPOLATIONS)
    where = drawn.choice(["note", "data", "optimizer", "hydra.yaml", "sweep.json"])
    if where == "sweep.json":
        plan = json.loads((place.sweep / "sweep.json").read_text())
        plan.pop("sha256", None)
        (place.sweep / "sweep.json").write_text(json.dumps({**plan, "arguments": [*plan["arguments"], f"note={text}"]}))
        return f"{text} in {where}", [f"resume={place.sweep}"]
    if where == "hydra.yaml":
        file = place.run / ".hydra" / "hydra.yaml"
        file.write_text(file.read_text().replace("- data=digits", f"- data.root={text}"))
        without_checksums(place)
    elif where == "note":
        change_config(place, lambda content: content.update(note=text))
    else:
        change_config(place, lambda content: put(content, where, {"lr" if where == "optimizer" else "root": text}))
    words = entry(drawn, place)
    return f"{text} in {where}, {words[0]}", words


def laughs(levels: int) -> str:
    lines = ["a0: &a0 [lol, lol]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


BOMBS: dict[str, Callable[[str], str]] = {
    "laughs": lambda text: f"{text}\n{laughs(12)}\n",
    "laughs within": lambda text: f"{text}\nnote: &n [x]\nmodel2: [{', '.join(['*n'] * 50)}]\n",
    "self": lambda text: f"{text}\nself: &s [*s]\n",
    "flow": lambda text: f"{text}\ndeep: {'[' * 20000}{']' * 20000}\n",
    "maps": lambda text: f"{text}\ndeep: {'{a: ' * 9000}1{'}' * 9000}\n",
    "block": lambda text: f"{text}\ndeep:\n  {'- ' * 9000}x\n",
    "python": lambda text: f"{text}\nx: !!python/object/apply:os.system ['touch CANARY']\n",
    "python name": lambda text: f"{text}\nx: !!python/name:os.system ''\n",
    "tag": lambda text: f"{text}\nx: !unknown 1\n",
    "documents": lambda text: f"{text}\n---\nx: 1\n",
    "binary": lambda text: f"{text}\nx: !!binary {'QUJD' * 100}\n",
    "merge": lambda text: f"{text}\nx: &b {{a: 1}}\ny:\n  <<: *b\n",
    "twice": lambda text: f"{text}\noptimizer: {{lr: 9}}\n",
    "tab": lambda text: f"{text}\n\tx: 1\n",
    "nothing": lambda text: "",
    "null": lambda text: "null",
    "list": lambda text: "- 1",
    "zero byte": lambda text: f"{text}\0",
    "digits": lambda text: f"{text}\nx: {'9' * 6000}\n",
}


def yaml_bomb(drawn: random.Random, place: Place) -> Hostile:
    name = drawn.choice(sorted(BOMBS))
    file = place.run / ".hydra" / drawn.choice(["config.yaml", "hydra.yaml"])
    file.write_text(BOMBS[name](file.read_text()).replace("CANARY", str(place.canary)))
    without_checksums(place)
    words = entry(drawn, place)
    return f"{name} in {file.name}, {words[0]}", words


JSONS = (
    "[" * 20000,
    '{"a":' * 20000 + "1" + "}" * 20000,
    '{"state": ' + "9" * 5000 + "}",
    "[]",
    "3",
    '"x"',
    '{"state": "finished"}',
    "NaN",
)


def json_bomb(drawn: random.Random, place: Place) -> Hostile:
    text = drawn.choice(JSONS)
    name = drawn.choice(["status.json", "metrics.json", "cost.json", "sweep.json"])
    if name == "sweep.json":
        (place.sweep / name).write_text(text)
        commands = [
            ["report", str(place.sweep), "--json"],
            [f"resume={place.sweep}"],
            [*SWEEP, f"hydra.sweep.dir={place.sweep}"],
        ]
        return f"{text[:12]} in {name}", drawn.choice([*commands, ["evaluate", str(place.sweep)]])
    (place.run / name).write_text(text)
    words = entry(drawn, place)
    return f"{text[:12]} in {name}, {words[0]}", words


def archive_bomb(drawn: random.Random, place: Place) -> Hostile:
    """A checkpoint that would grow while it is read."""
    file = place.run / "checkpoints" / "best.ckpt"
    form = drawn.choice(["expanded", "compressed", "entries", "npz"])
    if form == "expanded":
        content = torch.load(file, weights_only=True)
        torch.save({**content, "model": {"w": torch.zeros(1).expand(10**12)}}, file)
    elif form == "compressed":
        with (
            zipfile.ZipFile(io.BytesIO(file.read_bytes())) as before,
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as after,
        ):
            for name in before.namelist():
                after.writestr(name, before.read(name))
            after.writestr("archive/data/99", bytes(10**8))
    elif form == "entries":
        with zipfile.ZipFile(file, "a") as archive:
            for number in range(2000):
                archive.writestr(f"../../elsewhere/{number}", b"x")
    else:
        np.savez(file, a=np.array([Payload(place.canary)], dtype=object), allow_pickle=True)
        Path(f"{file}.npz").replace(file)
    return f"{form} archive", ["evaluate", str(place.run)]


def npz(drawn: random.Random, place: Place) -> Hostile:
    """The data set of the package with an object in it."""
    file = place.folder / "mnist5k.npz"
    np.savez(file, images=np.array([Payload(place.canary)], dtype=object), labels=np.zeros(3), allow_pickle=True)
    with mock.patch.object(Mnist5k, "FILE", file), suppress(UserError):
        Mnist5k().load()
        return "objects in npz, which are taken", ["no such command"]
    return "objects in npz", None


def override(drawn: random.Random, place: Place) -> Hostile:
    """Overrides in the plan of a sweep that would load a class, or reach for a file."""
    text = drawn.choice(
        [
            "hydra.launcher._target_=os.system",
            "+hydra.callbacks.x._target_=os.system",
            "hydra/launcher=basic",
            "--config-dir=/tmp",
            "experiment=../../elsewhere/evil",
            "optimizer=/etc/passwd",
            "optimizer@hydra.launcher=adam",
            'grids=[["trust=[os]","optimizer._target_=os.system"]]',
            "trust=[os]",
            "optimizer._target_=os.system",
            "hydra.run.dir=../../elsewhere",
            "hydra.sweep.dir=../../elsewhere",
            "hydra.searchpath=[file:///tmp]",
            "hydra.output_subdir=../../elsewhere",
            "sweep=../../elsewhere",
        ]
    )
    plan = json.loads((place.sweep / "sweep.json").read_text())
    plan.pop("sha256", None)
    (place.sweep / "sweep.json").write_text(json.dumps({**plan, "arguments": [*plan["arguments"], text]}))
    return f"{text} in sweep.json", [f"resume={place.sweep}"]


# -- links and places --------------------------------------------------------------------------------------------------------


def link(drawn: random.Random, place: Place) -> Hostile:
    """A file or folder that is a link to somewhere else, where something would be written through it."""
    in_run = ("checkpoints", "train.log", "metrics.csv", "metrics.json", "status.json", "cost.json", ".lock", ".hydra")
    in_sweep = (
        "0",
        "groups",
        "workers",
        "tensorboard",
        ".lock",
        "multirun.yaml",
        "results.csv",
        "sweep.json",
        "report.html",
        "1/train.log",
    )
    if drawn.random() < 0.5:
        name = drawn.choice(in_run)
        unfinished(place)
        make_link(place.run / name, place)
        words = drawn.choice([[*TINY, f"hydra.run.dir={place.run}"], [f"resume={place.run}"]])
        return f"link {name} in a run, {words[0]}", words
    name = drawn.choice(in_sweep)
    for number in "01":
        (place.sweep / number / "status.json").unlink()
    make_link(place.sweep / name, place)
    commands = [[*SWEEP, f"hydra.sweep.dir={place.sweep}"], ["report", str(place.sweep)]]
    return f"link {name} in a sweep", drawn.choice(commands)


def make_link(path: Path, place: Place) -> None:
    """A link at the path to a copy of what is there, elsewhere."""
    there = place.victim / path.name
    if path.is_dir():
        shutil.copytree(path, there)
        shutil.rmtree(path)
    else:
        there.write_bytes(path.read_bytes() if path.exists() else b"")
        path.unlink(missing_ok=True)
    path.symlink_to(there)


def cache_link(drawn: random.Random, place: Place) -> Hostile:
    root = write_images(place.folder / "images")
    name = drawn.choice([".ockham-cache", ".ockham-cache/.lock"])
    if name.endswith(".lock"):
        (root / ".ockham-cache").mkdir()
        (place.victim / ".lock").write_text("mine")
        (root / name).symlink_to(place.victim / ".lock")
    else:
        (root / name).symlink_to(place.victim)
    return f"link {name}", image_words(root)


def outside(drawn: random.Random, place: Place) -> Hostile:
    """Words of a command that lead elsewhere."""
    words = drawn.choice(
        [
            ["-m", *TINY, "seed=0,1", "sweep=../elsewhere/x"],
            ["-m", *TINY, "seed=0,1", "sweep=/tmp/x"],
            [*TINY, "optimizer=../../elsewhere/evil"],
            [*TINY, f"optimizer={place.victim}/evil"],
            [*TINY, "experiment=../elsewhere/evil"],
            [*TINY, "reg=[../../elsewhere/evil]"],
            [f"resume={place.victim}"],
            ["evaluate", str(place.victim)],
            ["report", str(place.victim / "absent")],
        ]
    )
    return " ".join(words[-1:]), words


# -- names -------------------------------------------------------------------------------------------------------------------

NAMES = (
    *(
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        '"><svg/onload=alert(1)>',
        "=HYPERLINK(1)",
        "+1+cmd|x",
        "@SUM(1)",
    ),
    *(
        "-2+3",
        "\t=1",
        "\x1b[2J\x1b[31mred",
        "\x1b]0;title\x07",
        "a\rb",
        "\x9b31m",
        "{{7*7}}",
        "</script><b>",
        "${jndi}",
        "%s%n",
        "`id`",
    ),
    *("$(touch CANARY)", "; touch CANARY", "\u202egnp.exe", "![x](http://x)", r"$\frac$"),
)


def note(drawn: random.Random, place: Place) -> Hostile:
    """A remark in a folder from elsewhere, which a report, a page and a terminal show."""
    text = drawn.choice(NAMES).replace("CANARY", str(place.canary))
    for number in "01":
        file = place.sweep / number / "status.json"
        status = json.loads(file.read_text())
        status.pop("sha256", None)
        file.write_text(json.dumps({**status, "note": text}))
    commands = [
        ["report", str(place.sweep)],
        [*SWEEP, f"hydra.sweep.dir={place.sweep}"],
        ["report", str(place.sweep), "--export", str(place.folder / "run.csv")],
    ]
    words = drawn.choice(commands)
    return f"note {text!r}, {words[0]}", words


def folder_name(drawn: random.Random, place: Place) -> Hostile:
    name = drawn.choice([name for name in NAMES if "/" not in name]).replace("CANARY", "canary")
    moved = place.run.rename(place.folder / name)
    return f"folder {name!r}", drawn.choice([["report", str(moved)], ["evaluate", str(moved)], ["evaluate", str(moved / "x")]])


def class_name(drawn: random.Random, place: Place) -> Hostile:
    name = drawn.choice([name for name in NAMES if "/" not in name]).replace("CANARY", "canary")
    root = write_images(place.folder / "images", names=(name, "dog"))
    return f"class {name!r}", image_words(root)


# -- images ------------------------------------------------------------------------------------------------------------------


def write_images(root: Path, names: Sequence[str] = ("cat", "dog")) -> Path:
    drawn = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in names:
            (root / split / name).mkdir(parents=True)
            for number in range(3):
                Image.fromarray(drawn.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(root / split / name / f"{number}.png")
    return root


def image_words(root: Path) -> list[str]:
    return ["data=image_folder", f"data.root={root}", "data.size=8", "data.val_samples=2", "model.hidden=[8]", "trainer=smoke"]


def png(width: int, height: int) -> bytes:
    """The head of a picture of this size, with hardly anything of it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def image(drawn: random.Random, place: Place) -> Hostile:
    """A file that is named as an image: of any format that Pillow writes, cut, changed, huge, or none."""
    root = write_images(place.folder / "images")
    file = root / "train" / "cat" / f"evil{drawn.choice(sorted(EXTENSIONS))}"
    Image.init()
    kind = drawn.choice(["format", "format", "cut", "changed", "huge", "none", "postscript"])
    if kind == "huge":
        file.write_bytes(png(*drawn.choice([(65500, 65500), (2**31 - 1, 1), (0, 5), (20000, 20000)])))
    elif kind == "none":
        file.write_bytes(
            drawn.choice([b"", b"\0" * 1000, b"GIF89a", b"\xff\xd8\xff", b"RIFF....WEBP", b"II*\0", b"P6 9 9 255\n", b"BM"])
        )
    elif kind == "postscript":
        file.write_bytes(
            f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch {place.canary}) (w) file\n%%EOF\n".encode()
        )
    else:
        kind = f"{kind} {_write_any(drawn, file)}"
        content = file.read_bytes()
        if kind.startswith("cut"):
            file.write_bytes(content[: drawn.randrange(1, max(len(content), 2))])
        elif kind.startswith("changed"):
            changed = bytearray(content)
            for _ in range(20):
                changed[drawn.randrange(len(changed))] = drawn.randrange(256)
            file.write_bytes(changed)
    try:
        ImageFolder(str(root), size=8).load()
    except UserError as error:
        if file.name not in str(error):
            return f"{kind} as {file.suffix} is not named: {error}", ["no such command"]
    return f"{kind} as {file.suffix}", None


def _write_any(drawn: random.Random, file: Path) -> str:
    """Write a picture in any format that Pillow can write, and of any mode; says which."""
    while True:
        kind, mode = drawn.choice(sorted(Image.SAVE)), drawn.choice(["1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "F", "LA"])
        with suppress(Exception):  # not every format holds every mode
            Image.new(mode, (9, 9)).save(file, format=kind)
            return f"{kind} {mode}"


KINDS: dict[str, Callable[[random.Random, Place], Hostile]] = {
    "pickles in checkpoints": pickled,
    "_target_": target,
    "interpolations": interpolation,
    "YAML bombs": yaml_bomb,
    "JSON bombs": json_bomb,
    "archives": archive_bomb,
    "objects in npz": npz,
    "overrides in a plan": override,
    "links": link,
    "links of caches": cache_link,
    "places elsewhere": outside,
    "remarks": note,
    "names of folders": folder_name,
    "names of classes": class_name,
    "images": image,
}

#: How often each kind comes in a round.
ROUND = tuple(
    name for name, times in zip(KINDS, (3, 4, 3, 4, 2, 1, 1, 2, 3, 1, 1, 3, 1, 1, 5), strict=True) for _ in range(times)
)


def what_came_of_it(place: Place, before: dict[str, bytes], left: Left | None) -> str | None:
    """Why a trial was not survived."""
    if place.canary.exists() or list(place.folder.rglob("canary")):
        return "the canary is there: something was run"
    if contents(place.victim) != before:
        return "something was written elsewhere"
    if left is None:
        return None
    shown = left.output + left.errors
    if SECRET in shown:
        return "the secret is shown"
    if left.code not in (0, 1, 2, 3) or "Traceback" in left.errors or len(left.errors.splitlines()) > MOST_LINES:
        return f"exit code {left.code}: {left.errors.strip()[-400:]}"
    if re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", shown):
        return f"a terminal would obey {shown[-200:]!r}"
    return what_files_hold(place.folder)


def what_files_hold(folder: Path) -> str | None:
    """A page with live names or no policy, a table with formulas, or a file with the secret, in what was written."""
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink() and "elsewhere" not in file.parts and SECRET.encode() in file.read_bytes():
            return f"the secret is in {file.name}"
    for page in [page for page in folder.rglob("report.html") if not page.is_symlink() and "elsewhere" not in page.parts]:
        text = page.read_text()
        if "Content-Security-Policy" not in text:
            return "the page has no Content-Security-Policy"
        if any(alive in text for alive in ("<script>alert", "<img src=x", "<svg/onload", "</script><b>")):
            return "a name is alive in the page"
    for page in folder.rglob("report.md"):
        if any(alive in page.read_text() for alive in ("<script>alert", "<img src=x", "<svg/onload")):
            return "a name is alive in report.md"
    for table in folder.rglob("*.csv"):
        if re.search(r'(^|,)"?[=@\t\r]', table.read_text(), re.MULTILINE):
            return f"a formula in {table.name}"
    return None


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def trials(seed: int, numbers: Sequence[int], folder: Path) -> Iterator[Trial]:
    whole = folder / "whole"
    if not whole.exists():
        commands = {
            "run": [*TINY, "reg=l2", f"hydra.run.dir={whole}/run"],
            "sweep": [*SWEEP, "report=false", f"hydra.sweep.dir={whole}/sweep"],
        }
        made = run_all(commands, whole / "commands")
        assert {one.code for one in made.values()} == {0}, made
    os.environ["OCKHAM_SECRET"] = SECRET
    for number in numbers:
        drawn = random.Random(f"hostile {seed} {number}")
        kind = ROUND[number % len(ROUND)]
        place = Place(folder / str(number))
        for name in ("run", "sweep"):
            shutil.copytree(whole / name, place.folder / name)
        place.victim.mkdir()
        (place.victim / "evil.yaml").write_text(f"# @package _global_\n_target_: os.system\nnote: {SECRET}\n")
        how, words = KINDS[kind](drawn, place)
        before = contents(place.victim)
        left = None if words is None else here(words, place.folder / "command")
        yield Trial(kind, how, what_came_of_it(place, before, left))
