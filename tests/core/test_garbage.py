"""What a long import brings is exempt from garbage collection, and nothing that comes later."""

import subprocess
import sys
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2] / "src"

CODE = """
import gc, weakref
from ockham.core.garbage import uncollected

class Node:
    pass

def cycle():
    node = Node()
    node.itself = node
    return weakref.ref(node)

with uncollected("sqlite3"):
    assert not gc.isenabled()
    import sqlite3
    early = cycle()
assert gc.isenabled()
frozen = gc.get_freeze_count()
assert frozen > len(vars(sqlite3))
late = cycle()
gc.collect()
assert early() is not None and late() is None

with uncollected("sqlite3"):  # as in the second run of a process
    assert gc.isenabled()
    again = cycle()
gc.collect()
assert again() is None
assert gc.get_freeze_count() <= frozen

gc.disable()
with uncollected("wave"):
    import wave
assert not gc.isenabled()  # as whoever disabled it wants it

gc.enable()
try:
    with uncollected("no_such_module"):
        import no_such_module
except ModuleNotFoundError:
    assert gc.isenabled()
else:
    raise AssertionError
"""


def test_only_what_the_first_import_brings_is_exempt() -> None:
    process = subprocess.run([sys.executable, "-c", CODE], cwd=SOURCES, stderr=subprocess.PIPE, text=True)
    assert (process.returncode, process.stderr) == (0, "")
