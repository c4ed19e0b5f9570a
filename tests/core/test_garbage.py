"""What a long import brings is exempt from garbage collection, and nothing that comes later."""

import subprocess
import sys
from pathlib import Path

import pytest

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


NANOBIND = """
import atexit, gc, sys
from importlib.machinery import ExtensionFileLoader
from types import ModuleType
from ockham.core.garbage import uncollected

built = type("nb_func", (), {})  # the type of functions in an extension that nanobind made
extension = ModuleType("extension")
extension.__loader__, extension.function = ExtensionFileLoader("extension", "extension.so"), built() if BUILT else len
atexit.register(lambda: print(gc.get_freeze_count() > 0))  # called last
with uncollected("extension"):
    sys.modules["extension"] = extension
"""


@pytest.mark.parametrize("built", [True, False])
def test_nothing_is_exempt_at_the_end_of_a_process_with_an_extension_of_nanobind(built: bool) -> None:
    """Which reports as leaks what is not collected then; other processes are spared the search."""
    code = NANOBIND.replace("BUILT", str(built))
    process = subprocess.run([sys.executable, "-c", code], cwd=SOURCES, capture_output=True, text=True, check=True)
    assert process.stdout.split() == [str(not built)]
