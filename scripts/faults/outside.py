"""Faults of others: a server that hangs, sends half, or sends something else; a clock that jumps; a GPU without room.

The server is one of this machine, in place of those that MNIST comes from.
"""

import contextlib
import gzip
import hashlib
import http.server
import random
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from faults.corruption import killed_after
from faults.one_process import here
from faults.trial import Trial
from ockham.data import sources
from ockham.data.sources import Mnist
from ockham.errors import UserError
from ockham.record.folder import RunFolder

COUNT = 48

TINY = (
    *("data=digits", "data.train_samples=200", "model.hidden=[8]", "trainer.max_epochs=4", "trainer.accelerator=cpu"),
    *("schedule=constant", "reg=dropout"),
)

#: So long a server may hang, in place of the seconds that a user waits.
PATIENCE = 1.0

MOST_SECONDS = 60.0


def idx(drawn: random.Random, count: int, *, images: bool) -> bytes:
    """A file in the format of MNIST, with so many images 28 x 28 or labels."""
    if images:
        return struct.pack(">IIII", 0x803, count, 28, 28) + drawn.randbytes(count * 784)
    return struct.pack(">II", 0x801, count) + bytes(index % 10 for index in range(count))


class Server:
    """Serves the four archives of a small MNIST, with a fault in what it sends; `fault` is None for none."""

    def __init__(self, drawn: random.Random) -> None:
        sizes = {"train": 200, "t10k": 50}
        self.files = {
            f"{split}-{kind}-ubyte": idx(drawn, count, images=kind.startswith("images"))
            for split, count in sizes.items()
            for kind in ("images-idx3", "labels-idx1")
        }
        self.archives = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in self.files.items()}
        self.fault: str | None = None
        self.asked = 0
        self.ending = threading.Event()

    def answer(self, handler: http.server.BaseHTTPRequestHandler, *, with_body: bool) -> None:
        content = self.archives[handler.path.rpartition("/")[2]]
        self.asked += with_body
        if self.fault == "hangs before the head" or (self.fault == "hangs" and with_body):
            self.ending.wait(MOST_SECONDS)
            return
        if self.fault == "refuses":
            handler.send_error(503)
            return
        if self.fault == "sends another file" and with_body:
            content = b"<html>please log in</html>"
        elif self.fault == "sends another archive":
            content = gzip.compress(b"x" * 1000)
        elif self.fault == "sends noise":
            content = bytes(byte ^ 0x55 for byte in content)
        elif self.fault == "redirects in a circle":
            handler.send_response(302)
            handler.send_header("Location", handler.path)
            handler.end_headers()
            return
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if with_body:
            is_half = self.fault == "sends half" or (self.fault == "sends half of the second" and self.asked == 2)
            handler.wfile.write(content[: len(content) // 2] if is_half else content)

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        """Its address."""
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self, with_body=True)

            def do_HEAD(self) -> None:
                server.answer(self, with_body=False)

            def log_message(self, *arguments: Any) -> None:
                """Nothing is printed."""

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
            threading.Thread(target=listening.serve_forever, daemon=True).start()
            try:
                yield f"http://127.0.0.1:{listening.server_address[1]}/"
            finally:
                self.ending.set()
                listening.shutdown()

    @contextlib.contextmanager
    def in_place_of_mnist(self, address: str) -> Iterator[None]:
        """The data set is then the small one, from this server."""
        from torchvision.datasets import MNIST

        resources = [(name, hashlib.md5(content, usedforsecurity=False).hexdigest()) for name, content in self.archives.items()]
        digests = {name: hashlib.md5(content, usedforsecurity=False).hexdigest() for name, content in self.files.items()}
        with (
            mock.patch.object(MNIST, "mirrors", [address]),
            mock.patch.object(MNIST, "resources", resources),
            mock.patch.object(Mnist, "MD5", digests),
            mock.patch.object(sources, "NETWORK_SECONDS", PATIENCE),
        ):
            yield


FAULTS = (
    *("hangs", "hangs before the head", "refuses", "sends half", "sends half of the second", "sends another file"),
    *("sends another archive", "sends noise", "redirects in a circle"),
)


def server(drawn: random.Random, place: Path) -> tuple[str, str | None]:
    """A download from a server with a fault ends with one mistake and leaves nothing; the next, from one without, is whole."""
    fault = drawn.choice(FAULTS)
    serving = Server(drawn)
    serving.fault = fault
    root = place / "data"
    began = time.monotonic()
    with serving.running() as address, serving.in_place_of_mnist(address):
        try:
            Mnist(str(root)).load()
            return fault, "what it sent is taken for whole"
        except UserError as error:
            if "MNIST" not in str(error) or len(str(error).splitlines()) > 6:
                return fault, f"the mistake says {str(error)[:300]}"
        if time.monotonic() - began > MOST_SECONDS / 2:
            return fault, f"took {time.monotonic() - began:.0f} s"
        left = [path.name for path in root.rglob("*") if path.is_file() and not path.name.endswith(".lock")]
        if left:
            return fault, f"left {', '.join(left[:3])}"
    whole = Server(drawn)
    whole.files, whole.archives = serving.files, serving.archives
    with whole.running() as address, whole.in_place_of_mnist(address):
        source = Mnist(str(root)).load()
    raw = whole.files["train-images-idx3-ubyte"][16:]
    return fault, None if bytes(source.train.images.flatten().tolist()) == raw else "other images after that"


def clock(drawn: random.Random, place: Path) -> tuple[str, str | None]:
    """A clock that jumps while a run trains: its results are those of a run with a steady one."""
    jump = drawn.choice([-3e8, -3600.0, -1.5, 3600.0, 3e8])
    steady, jumping = place / "steady", place / "jumping"
    left = here([*TINY, f"hydra.run.dir={steady}"], place / "first")
    if left.code:
        return f"{jump:g} s", f"the run itself fails: {left.errors[-300:]}"
    real, calls, after = time.time, [0], drawn.randrange(1, 30)

    def jumps() -> float:
        calls[0] += 1
        return real() + (jump if calls[0] > after else 0.0)

    is_killed = drawn.random() < 0.5  # and continues after the jump, beside files of a later time
    if is_killed:
        after = 0
        with killed_after(2):
            here([*TINY, f"hydra.run.dir={jumping}"], place / "killed")
    with mock.patch.object(time, "time", jumps):
        left = here([*TINY, f"hydra.run.dir={jumping}"], place / "second")
    if left.code:
        return f"{jump:g} s", f"exit code {left.code}: {left.errors[-300:]}"
    names = ("metrics.csv", "metrics.json", "checkpoints/last.ckpt")
    differing = [name for name in names if (steady / name).read_bytes() != (jumping / name).read_bytes()]
    if any(value < 0 for value in RunFolder(jumping).cost().values()):
        differing.append("cost.json, with times below 0")
    return f"{jump:g} s{', continued' if is_killed else ''}", ", ".join(differing) or None


KINDS: dict[str, Callable[[random.Random, Path], tuple[str, str | None]]] = {"server": server, "clock that jumps": clock}

#: How often each comes in a round.
ROUND = ("server", "server", "server", "clock that jumps")


def trials(seed: int, numbers: Sequence[int], folder: Path) -> Iterator[Trial]:
    """What needs a GPU, one that runs out of memory, is a test of tests/test_gpu.py where there is one."""
    if torch.cuda.is_available():
        print("outside: a GPU without room is not tried here")
    for number in numbers:
        kind = ROUND[number % len(ROUND)]
        how, failure = KINDS[kind](random.Random(f"outside {seed} {number}"), folder / str(number))
        yield Trial(kind, how, failure)
