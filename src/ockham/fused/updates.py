"""The steps of all members, in one of two forms that keep the same state, and which of them a group takes.

Both run forward and backward pass for all members at once. `Native` then lets each member's own torch optimizer step.
`Compiled` updates all members of a rule with one compiled program, which pays where the group is long enough.
"""

import logging
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from ockham.fused.objective import Batch
from ockham.fused.stack import stacked_parameters
from ockham.optim.responses import rules_of
from ockham.optim.rules import Update
from ockham.run import Run

log = logging.getLogger("ockham")

#: A compiled step takes about so many seconds for each parameter of each member (scripts/bench_sweep.py --case sizes).
SECONDS_A_STEP = 4e-9
#: The program of an update saves so many of them, and for each rule it takes so many to compile.
SECONDS_SAVED, SECONDS_TO_COMPILE = 1.2e-9, 1.6
#: However small the model is, it saves the calls of each member's own optimizer in each step: 40 to 200 microseconds.
SECONDS_SAVED_A_MEMBER = 5e-5
#: The same of the program of the gradients, whose calls are one for all members: 0.6 to 3 milliseconds a step.
SECONDS_SAVED_BY_GRADIENTS, SECONDS_TO_COMPILE_GRADIENTS = 0.7e-9, 3.0
SECONDS_SAVED_BY_GRADIENTS_A_STEP = 5e-4


class Updates(Protocol):
    """Steps of the members."""

    def prepare(self, microbatches: Sequence[Batch]) -> None:
        """What has to be done once before steps on micro-batches of these shapes. Raises CannotCompileError."""

    def step(self, microbatches: Sequence[Batch], factors: np.ndarray, number: int) -> Tensor:
        """A step in place with `factors` (members,) times each learning rate; returns the members' objectives, (members,).

        `number` is 1 for the first step. The micro-batches are worked on one after the other, and make one batch together.
        """

    def state(self, position: int) -> dict[str, Any]:
        """The state_dict of the member's torch optimizer; its tensors may be views."""

    def averaged_weights(self, position: int) -> dict[str, Tensor]:
        """The averages that the member is judged by, by parameter name; empty where its trained weights are."""

    def averages(self, position: int) -> dict[str, Tensor]:
        """What a regularizer of the member keeps of each parameter, by its name; empty where none does."""

    def load(self, position: int, state: Mapping[str, Any], averages: Mapping[str, Tensor]) -> None:
        """Go on from such a state_dict, from one without states of parameters as before the first step, and such averages."""


def pays_to_compile(runs: Sequence[Run]) -> bool:
    """Whether the compiled form is faster for a whole run of these members, where a compiler is there."""
    saved = _updated_parameters(runs) * SECONDS_SAVED + runs[0].total_steps * len(runs) * SECONDS_SAVED_A_MEMBER
    if saved < _seconds_to_compile(runs) or not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        return False
    log.info("compiling, which saves about %.0f s over %d steps of %d runs", saved, runs[0].total_steps, len(runs))
    return True


def pays_to_compile_gradients(runs: Sequence[Run]) -> bool:
    """Whether the gradients of members whose updates are compiled are to be compiled too."""
    saved = _updated_parameters(runs) * SECONDS_SAVED_BY_GRADIENTS + runs[0].total_steps * SECONDS_SAVED_BY_GRADIENTS_A_STEP
    return saved > SECONDS_TO_COMPILE_GRADIENTS


def _updated_parameters(runs: Sequence[Run]) -> int:
    """Parameters of all members, counted once for each step that updates them."""
    return runs[0].total_steps * len(runs) * runs[0].num_parameters


def pays_to_shrink(runs: Sequence[Run], kept: Sequence[Run], steps: int, *, compile_again: bool) -> bool:
    """Whether to leave ended members behind, for `steps` further steps: once they are half, and repay a new compilation."""
    if 2 * len(kept) > len(runs):
        return False
    leaving = len(runs) - len(kept)
    saved = steps * leaving * runs[0].num_parameters * SECONDS_A_STEP
    return not compile_again or saved > _seconds_to_compile(kept)


def _seconds_to_compile(runs: Sequence[Run]) -> float:
    return len({updates_of(run) for run in runs}) * SECONDS_TO_COMPILE


def updates_of(run: Run) -> tuple[Update, ...]:
    """What the member's optimizer does to each parameter, read from the optimizer itself."""
    rules = rules_of(run.make_optimizer(run.model), stacked_parameters(run.model))
    return tuple(rule.update for rule, _ in rules)


def order(runs: Sequence[Run]) -> list[int]:
    """Positions such that members of the same rules stand together, otherwise as they were."""
    rules = [updates_of(run) for run in runs]
    return sorted(range(len(rules)), key=lambda position: (rules.index(rules[position]), position))
