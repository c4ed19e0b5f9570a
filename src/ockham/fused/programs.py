"""Functions of tensors as compiled programs."""

import hashlib
import logging
import os
import time
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import AcquireReturnProxy, FileLock, Timeout
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from ockham.core import cache

log = logging.getLogger("ockham")


def _use_private_cache() -> None:
    """Have torch keep compiled programs in the user's cache folder, where that is not set otherwise.

    By default they would be in a folder for temporary files, which others may have made, and which does not last.
    """
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        with suppress(OSError, RuntimeError):  # the folder is not the user's alone, or there is no home
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache.private_folder() / "programs")


_use_private_cache()  # at once: the first optimizer of a process makes torch settle on its default

Program = Callable[..., Any]

_programs: dict[Hashable, Program] = {}


class CannotCompileError(RuntimeError):
    """The compiler does not take a function, or is not there."""


class Source(NamedTuple):
    """What a program is made from: a function, and arguments like those that it will have, tensors in dicts and lists.

    Functions of one `identity` are the same for arguments of the same names and shapes.
    """

    function: Program
    identity: Hashable
    arguments: tuple[Any, ...]


class Traced(NamedTuple):
    """A source that has no program yet, as a graph of operations on the tensors in its arguments."""

    key: Hashable
    graph: torch.fx.GraphModule
    example: Sequence[Tensor]

    @property
    def digest(self) -> str:
        shapes = [(tensor.shape, tensor.stride(), tensor.dtype, tensor.device) for tensor in self.example]
        return hashlib.sha256(f"{self.graph.code}{shapes}".encode()).hexdigest()


def compiled(sources: Sequence[Source]) -> list[Program]:
    """A program for each source. It is kept for later groups of this process.

    Processes that want the same programs at the same time share the work: each begins with one that no other is at, and
    takes from torch's cache what others have compiled meanwhile. Raises CannotCompileError.
    """
    flat = [pytree.tree_flatten(source.arguments) for source in sources]
    keys = [
        (source.identity, structure, tuple((tensor.shape, tensor.stride(), tensor.dtype, tensor.device) for tensor in tensors))
        for source, (tensors, structure) in zip(sources, flat, strict=True)
    ]
    try:
        waiting = [
            Traced(key, _traced(source, structure, tensors), tensors)
            for key, source, (tensors, structure) in zip(keys, sources, flat, strict=True)
            if key not in _programs
        ]
        while waiting:
            index, claim = _unclaimed(waiting)
            traced = waiting.pop(index)
            with claim:
                _programs[traced.key] = _program(traced)
    except RuntimeError as error:
        raise CannotCompileError(str(error).splitlines()[0]) from error
    return [_on_leaves(_programs[key]) for key in keys]


def _on_leaves(program: Program) -> Program:
    return lambda *arguments: program(*pytree.tree_leaves(arguments))


def _traced(source: Source, structure: pytree.TreeSpec, example: Sequence[Tensor]) -> torch.fx.GraphModule:
    """The compiler takes a gradient inside of what it compiles only as the operations that it is made of."""
    with _without_warnings():
        function = lambda *tensors: source.function(*pytree.tree_unflatten(tensors, structure))  # noqa: E731
        return make_fx(function, tracing_mode="fake")(*example)


def _unclaimed(waiting: Sequence[Traced]) -> tuple[int, AcquireReturnProxy]:
    """The first that no other process is compiling, and what ends the claim to it; the very first, once free, if all are."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    folder = Path(cache_dir()) / "ockham"
    folder.mkdir(parents=True, exist_ok=True)
    locks = [FileLock(folder / f"{traced.digest}.lock") for traced in waiting]
    for index, lock in enumerate(locks):
        with suppress(Timeout):
            return index, lock.acquire(timeout=0)
    return 0, locks[0].acquire()


def _program(traced: Traced) -> Program:
    from torch._inductor import config  # late: the compiler takes seconds to import

    # Beyond its limit of recompilations torch would silently run the slow form; a program has no reason for a second.
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    began = time.monotonic()
    with _without_warnings():
        try:
            # The vector instructions that the processor names are taken as given: trying all with the compiler takes seconds.
            with config.patch({"cpp.vec_isa_ok": True}):
                program = _compile(traced)
        except RuntimeError:  # a compiler older than the processor
            program = _compile(traced)
    log.info("compiled in %.1f s", time.monotonic() - began)
    return program


def _compile(traced: Traced) -> Program:
    # Guards would check at every step what `compiled` knows from the key.
    options: dict[str, Any] = {"guard_filter_fn": lambda guards: [False] * len(guards)}
    program = torch.compile(traced.graph, dynamic=False, fullgraph=True, options=options)
    # Compiled at the first call, with copies, since that changes what it is called with.
    program(*[tensor.clone() for tensor in traced.example])
    return program


@contextmanager
def _without_warnings() -> Iterator[None]:
    """What the compiler thinks of torch is not the user's concern."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
