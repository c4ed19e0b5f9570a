"""The regularizers of all members as numbers over members; a member without one has the number that changes nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ockham.core.clipping import Clipping
from ockham.optim.rules import Hyper, Rule, State
from ockham.reg import (
    L1,
    L2,
    ElasticNet,
    GroupLasso,
    MaxNorm,
    WeightDecay,
)
from ockham.reg.penalties import clip_unit_norms, elastic_net_shrink, group_shrink, soft_threshold
from ockham.run import Run

T = TypeVar("T")

#: The numbers of proximal steps.
PROXIMAL = frozenset({"net_l1", "net_l2", "groups", "l1"})


def column(values: Tensor, like: Tensor) -> Tensor:
    """Numbers (members,) shaped to be broadcast against a tensor (members, ...)."""
    return values.view(-1, *[1] * (like.ndim - 1))


def own(run: Run, kind: type[T]) -> T | None:
    """The member's regularizer of a kind; none has two."""
    return next((reg for reg in run.regularizers if isinstance(reg, kind)), None)


def numbers(runs: Sequence[Run], kind: type[T], of: Callable[[T], float], otherwise: float = 0.0) -> np.ndarray:
    """`of` each member's regularizer of that kind, (members,)."""
    found = [own(run, kind) for run in runs]
    return np.array([otherwise if reg is None else of(reg) for reg in found], dtype=np.float64)


@dataclass(frozen=True)
class OnWeights:
    """What acts on the weights at an update, each (members,): on matrices, and on all else where a bias is included."""

    matrices: dict[str, np.ndarray]
    others: dict[str, np.ndarray]

    @classmethod
    def of(cls, runs: Sequence[Run]) -> "OnWeights":
        def both(
            kind: type[T], of: Callable[[T], float], *, where: Callable[[T], bool] = lambda reg: True
        ) -> tuple[np.ndarray, np.ndarray]:
            on_matrices = numbers(runs, kind, lambda reg: of(reg) if where(reg) else 0.0)
            on_others = numbers(
                runs, kind, lambda reg: of(reg) if where(reg) and reg.include_bias else 0.0  # type: ignore[attr-defined]
            )  # fmt: skip
            return on_matrices, on_others

        in_loss = lambda reg: not reg.proximal  # noqa: E731
        proximal = lambda reg: reg.proximal  # noqa: E731
        l2, l1 = both(L2, lambda reg: reg.factor), both(L1, lambda reg: reg.strength, where=in_loss)
        net_l1 = both(ElasticNet, lambda reg: reg.strength * reg.l1_ratio, where=in_loss)
        net_l2 = both(ElasticNet, lambda reg: reg.strength * (1 - reg.l1_ratio), where=in_loss)
        pairs = {
            "squares": (l2[0] + net_l2[0], l2[1] + net_l2[1]),
            "magnitudes": (l1[0] + net_l1[0], l1[1] + net_l1[1]),
            "decay": both(WeightDecay, lambda reg: reg.strength),
            "net_l1": both(ElasticNet, lambda reg: reg.strength * reg.l1_ratio, where=proximal),
            "net_l2": both(ElasticNet, lambda reg: reg.strength * (1 - reg.l1_ratio), where=proximal),
            "l1": both(L1, lambda reg: reg.strength, where=proximal),
        }
        nothing = np.zeros(len(runs))
        groups = numbers(runs, GroupLasso, lambda reg: reg.strength)
        limits = numbers(runs, MaxNorm, lambda reg: reg.limit, otherwise=np.inf)
        matrices = {name: pair[0] for name, pair in pairs.items()} | {"groups": groups, "limit": limits}
        others = {name: pair[1] for name, pair in pairs.items()} | {"groups": nothing, "limit": nothing + np.inf}
        return cls(matrices, others)

    @property
    def used(self) -> frozenset[str]:
        """Which of them change anything for any member."""
        return frozenset(
            name
            for name in self.matrices
            for side in (self.matrices, self.others)
            if (np.isfinite(side[name]) if name == "limit" else side[name] != 0).any()
        )


def penalized(
    used: frozenset[str],
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    on_matrices: Hyper,
    on_others: Hyper,
    *,
    like: Tensor,
) -> tuple[Tensor, list[Tensor]]:
    """(the penalties in the loss, (members,); the gradients with theirs)."""
    penalty, whole = torch.zeros_like(like), []
    for w, g in zip(parameters, gradients, strict=True):
        c = {name: column(values, w) for name, values in (on_matrices if w.ndim > 2 else on_others).items()}
        axes = tuple(range(1, w.ndim))
        if "squares" in used:
            penalty = penalty + (c["squares"] * w * w).sum(axes)
            g = g + 2 * c["squares"] * w
        if "magnitudes" in used:
            penalty = penalty + (c["magnitudes"] * w.abs()).sum(axes)
            g = g + c["magnitudes"] * w.sign()
        whole.append(g)
    return penalty, whole


def update(
    rules: Sequence[Rule],
    used: frozenset[str],
    clipping: Clipping | None,
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    states: Sequence[State],
    hypers: Sequence[Hyper],
    on_matrices: Hyper,
    on_others: Hyper,
) -> Tensor:
    """One step of members with the same rules, in place: penalties in the loss, clipping, decay, rule, proximal steps and
    projections.

    The order is that of a single run. Each parameter (members, ...) has its rule with hyperparameters (members,). Returns the
    penalties in the loss, (members,).
    """
    penalty, gradients = penalized(used, parameters, gradients, on_matrices, on_others, like=hypers[0]["lr"])
    if clipping is not None:
        gradients = clipping.stacked(gradients)
    for rule, p, g, state, hyper in zip(rules, parameters, gradients, states, hypers, strict=True):
        matrix = p.ndim > 2
        c = {name: column(values, p) for name, values in (on_matrices if matrix else on_others).items()}
        h = {name: column(values, p) for name, values in hyper.items()}
        w = p
        if "decay" in used:
            w = w * (1 - h["lr"] * c["decay"])
        w, new = rule.update(w, g, state, h)
        response = rule.response(new, h) if rule.response is not None and used & PROXIMAL else h["lr"]
        if "net_l1" in used or "net_l2" in used:
            w = elastic_net_shrink(w, response * c["net_l1"], response * c["net_l2"])
        if "groups" in used and matrix:
            w = torch.vmap(group_shrink)(w, response, on_matrices["groups"])
        if "l1" in used:
            w = soft_threshold(w, response * c["l1"])
        if "limit" in used and matrix:
            w = torch.vmap(clip_unit_norms)(w, on_matrices["limit"])
        p.copy_(w)
        for name, value in new.items():
            state[name].copy_(value)
    return penalty
