"""Python's search for cyclic garbage, kept away from what lives as long as the process."""

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ExtensionFileLoader


@contextmanager
def uncollected(module: str) -> Iterator[None]:
    """Inside the block, the first to import `module`, garbage is not looked for, and what exists at its end is exempt for good.

    torch and Lightning bring a million objects that live as long as the process. To look through them while they are imported,
    and once more when the process ends, takes two thirds of the time that the import itself takes. Where the module is imported
    already nothing changes: what one run has left behind is collected before or while the next one trains, as ever.
    """
    if module in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        atexit.unregister(collect_for_nanobind)
        atexit.register(collect_for_nanobind)


def collect_for_nanobind() -> None:
    """Exempt nothing as the process ends, where an extension was built with nanobind, as Triton from 3.9 on.

    It reports whatever has not been collected by then as leaks, a page of them.
    """
    extensions = [
        module for module in [*sys.modules.values()] if isinstance(getattr(module, "__loader__", None), ExtensionFileLoader)
    ]
    if any(type(value).__name__ == "nb_func" for module in extensions for value in vars(module).values()):
        gc.unfreeze()
