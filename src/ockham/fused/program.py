"""Compiling the update where that pays."""

import logging
import shutil
import warnings
from collections.abc import Callable
from typing import Any

import torch

log = logging.getLogger("ockham")

#: A compiled update saves about so many seconds for each element and step, and takes so many to compile
#: (scripts/bench_sweep.py --case compile).
SECONDS_SAVED, SECONDS_TO_COMPILE = 4e-9, 6.0

_compiled: dict[Callable[..., Any], Callable[..., Any]] = {}


def compiled(function: Callable[..., Any], *, steps: int, elements: int) -> Callable[..., Any]:
    """`function` compiled, where a compiler exists and so many steps on so many elements repay it; otherwise as it is.

    A failure to compile falls back with a warning. The program is kept for later groups of the same shapes.
    """
    saved = steps * elements * SECONDS_SAVED
    if saved < SECONDS_TO_COMPILE or not _has_compiler():
        return function
    log.info("compiling the update: %d steps on %d elements save about %.0f s", steps, elements, saved)
    if function not in _compiled:
        # Each set of shapes and rules is one more program; beyond the limit torch would silently run the slow form.
        torch._dynamo.config.recompile_limit = 256
        torch._dynamo.config.accumulated_recompile_limit = 4096
        torch._dynamo.config.fail_on_recompile_limit_hit = True
        _compiled[function] = torch.compile(function, dynamic=False, fullgraph=True)
    return _or_eager(function, _compiled[function])


def _has_compiler() -> bool:
    return any(shutil.which(name) for name in ("g++", "clang++", "c++"))


def _or_eager(function: Callable[..., Any], fast: Callable[..., Any]) -> Callable[..., Any]:
    """Calls the compiled form until it fails to compile; an update is then done eagerly, from its beginning."""
    chosen = [fast]

    def call(*arguments: Any) -> Any:
        if chosen[0] is function:
            return function(*arguments)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what the compiler thinks of torch is not the user's concern
                return fast(*arguments)
        except torch._dynamo.exc.TorchDynamoException as error:
            log.warning("warning: the update could not be compiled and runs slower: %s", str(error).splitlines()[0])
            chosen[0] = function
            return function(*arguments)

    return call
