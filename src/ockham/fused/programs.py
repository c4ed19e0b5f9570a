"""Functions of tensors as compiled programs."""

import logging
import time
import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

log = logging.getLogger("ockham")

T = TypeVar("T")

_programs: dict[Hashable, Callable[..., Any]] = {}


class CannotCompileError(RuntimeError):
    """The compiler does not take a function, or is not there."""


def compiled(function: Callable[..., T], identity: Hashable, *arguments: Any) -> Callable[..., T]:
    """`function` as one compiled program for arguments like these, which are tensors in dicts and lists.

    The program is kept for later groups: functions of one `identity` are the same for arguments of the same names and
    shapes. Raises CannotCompileError.
    """
    flat, structure = pytree.tree_flatten(arguments)
    key = (identity, structure, tuple((value.shape, value.stride(), value.dtype, value.device) for value in flat))
    if key not in _programs:
        _programs[key] = _program(lambda *values: function(*pytree.tree_unflatten(values, structure)), flat)
    program = _programs[key]
    return lambda *arguments: program(*pytree.tree_leaves(arguments))


def _program(function: Callable[..., T], example: Sequence[Tensor]) -> Callable[..., T]:
    # Beyond its limit of recompilations torch would silently run the slow form; a program has no reason for a second.
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    began = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the compiler thinks of torch is not the user's concern
        try:
            # Traced first: the compiler takes a gradient inside of what it compiles only as the operations that it is made of.
            traced = make_fx(function, tracing_mode="fake")(*example)
            program = _compile(traced, example)
        except RuntimeError as error:
            raise CannotCompileError(str(error).splitlines()[0]) from error
    log.info("compiled in %.1f s", time.monotonic() - began)
    return program


def _compile(traced: torch.fx.GraphModule, example: Sequence[Tensor]) -> Callable[..., Any]:
    try:
        # The vector instructions that the processor names are taken as given: to try each with the compiler takes 7 s.
        return _compiled_with({"cpp.vec_isa_ok": True}, traced, example)
    except RuntimeError:  # a compiler older than the processor
        return _compiled_with({}, traced, example)


def _compiled_with(settings: dict[str, Any], traced: torch.fx.GraphModule, example: Sequence[Tensor]) -> Callable[..., Any]:
    # Guards would check at every step what `compiled` knows from the key.
    options = {"guard_filter_fn": lambda guards: [False] * len(guards), **settings}
    program = torch.compile(traced, dynamic=False, fullgraph=True, options=options)
    # Compiled at the first call, with copies, since that changes what it is called with.
    program(*[value.clone() for value in example])
    return program
