"""What ends a command, or holds it: Ctrl-C once and twice, SIGTERM, a closed terminal, SIGSTOP; at a drawn moment.

The command leaves with 130 (a signal that comes before Ockham is imported ends Python as it always does), runs that had their
time say that they were interrupted, no process is left, and the same command again leaves what an unbroken one leaves.
"""

import json
import os
import pty
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from faults.kill import COMMANDS
from faults.trial import SECONDS_TO_END, Trial, finished, gone, last_lines, prepare, processes, start, unbroken

COUNT = 42

KINDS = ("single", "fused", "fuse=off")

#: The code of an interrupted command.
INTERRUPTED = 130

Send = Callable[[subprocess.Popen[bytes], random.Random], None]


def to_group(number: signal.Signals) -> Send:
    return lambda process, _: os.killpg(process.pid, number)


def to_parent(number: signal.Signals) -> Send:
    return lambda process, _: process.send_signal(number)


def ctrl_c_twice(process: subprocess.Popen[bytes], generator: random.Random) -> None:
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(generator.uniform(0, 1))
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)


def stop_and_go_on(process: subprocess.Popen[bytes], generator: random.Random) -> None:
    os.killpg(process.pid, signal.SIGSTOP)
    time.sleep(generator.uniform(5, 60))
    os.killpg(process.pid, signal.SIGCONT)


SIGNALS: Mapping[str, Send] = {
    "Ctrl-C": to_group(signal.SIGINT),
    "SIGINT to the parent": to_parent(signal.SIGINT),
    "Ctrl-C twice": ctrl_c_twice,
    "SIGTERM to the parent": to_parent(signal.SIGTERM),
    "SIGTERM to the group": to_group(signal.SIGTERM),
    "closed terminal": lambda process, _: None,  # what closes it is the trial
    "SIGSTOP": stop_and_go_on,
}


def trials(seed: int, numbers: Sequence[int], folder: Path) -> Iterator[Trial]:
    lengths: dict[str, float] = {}
    for number in numbers:
        generator = random.Random(f"signals {seed} {number}")
        name = list(SIGNALS)[number % len(SIGNALS)]
        kind = KINDS[number // len(SIGNALS) % len(KINDS)]
        whole = folder / "whole" / kind
        if kind not in lengths:
            lengths[kind] = unbroken(COMMANDS[kind], whole)
        moment = generator.uniform(0, 0.9 * lengths[kind])
        failure = signalled(name, COMMANDS[kind], folder / str(number), whole, moment, generator)
        yield Trial(f"{kind}: {name}", f"after {moment:.2f} s of {lengths[kind]:.1f}", failure)


def signalled(
    name: str, words: Sequence[str], folder: Path, whole: Path, moment: float, generator: random.Random
) -> str | None:
    """Send the signal after `moment` seconds, then give the command again; returns what is wrong."""
    prepare(words, folder)
    log = folder / "0.out"
    master, slave = pty.openpty() if name == "closed terminal" else (None, None)
    process = start(words, log, terminal=slave)
    if slave is not None:
        os.close(slave)
    began = time.monotonic()
    while process.poll() is None and time.monotonic() < began + moment:
        drain(master)
        time.sleep(0.02)
    if process.poll() is None:
        SIGNALS[name](process, generator)
    if master is not None:
        os.close(master)
    code = process.wait()
    if not gone(log, SECONDS_TO_END):
        return f"processes {processes(log)} are left {SECONDS_TO_END:g} s after the end"
    states = [json.loads(file.read_text())["state"] for file in folder.glob("out/**/status.json")]
    expected = {0} if name == "SIGSTOP" else {0, INTERRUPTED}
    if name != "SIGSTOP" and (not states or set(states) == {"finished"}):  # before it began, or while Python ends
        expected |= {-signal.SIGINT, -signal.SIGTERM, -signal.SIGHUP}
    if name != "closed terminal" and code not in expected:
        return f"it leaves with {code}: {last_lines(log)}"
    if "running" in states and "twice" not in name:
        return f"runs are {', '.join(states)}"
    return finished(words, folder, whole, [log])


def drain(master: int | None) -> None:
    """Read what the command shows, so that its terminal does not fill up."""
    if master is not None:
        os.set_blocking(master, False)
        try:
            os.read(master, 1 << 16)
        except OSError:  # nothing there
            return
