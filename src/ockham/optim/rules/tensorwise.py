"""Steps that depend on a whole parameter: on its norm, its rows and columns, or on it as a matrix.

What is summed over is one member's parameter: all axes but the first.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ockham.optim.rules.adam import adam_corrections, moments, root_of
from ockham.optim.rules.rule import Hyper, Numbers, Rule, State, decayed, nothing, zeros

if TYPE_CHECKING:
    from torch import Tensor


def _norm(x: "Tensor") -> "Tensor":
    """The Euclidean norm of each member's x (members, ...), (members, 1, ...)."""
    return x.square().sum(dim=tuple(range(1, x.ndim)), keepdim=True).sqrt()


def _mean_square(x: "Tensor", *, dim: tuple[int, ...]) -> "Tensor":
    return x.square().mean(dim=dim, keepdim=True)


def _ratio(above: "Tensor", below: "Tensor", factor: Any = 1.0) -> "Tensor":
    """factor * above / below, and 1 where either is 0: a parameter that is still 0 has no size to compare its step with."""
    is_zero = ((above == 0) | (below == 0)).to(above.dtype)
    return (1 - is_zero) * factor * above / (below + is_zero) + is_zero


def with_size(*names: str) -> Callable[["Tensor"], State]:
    """Zeros like the parameter, and what its last step was multiplied with, `size` (members, 1, ...)."""

    def state(p: "Tensor") -> State:
        return {**zeros(*names)(p), "size": p.new_zeros(len(p), *[1] * (p.ndim - 1))}

    return state


def lamb(p: "Tensor", g: "Tensor", state: State, h: Hyper) -> tuple["Tensor", State]:
    """You et al. 2020, Large Batch Optimization for Deep Learning: Training BERT in 76 minutes, with the identity as phi."""
    new = moments(g, state, h)
    direction = h["size"] / h["lr"] * new["exp_avg"] / root_of(new, h) + h["weight_decay"] * p
    new["size"] = h["lr"] * _ratio(_norm(p), _norm(direction))
    return p - new["size"] * direction, new


def lamb_response(state: Mapping[str, Any], h: Hyper) -> "Tensor":
    return state["size"] / root_of(state, h)


def lars(p: "Tensor", g: "Tensor", state: State, h: Hyper) -> tuple["Tensor", State]:
    """You et al. 2017, Large Batch Training of Convolutional Networks."""
    size = h["lr"] * _ratio(_norm(p), _norm(g) + h["weight_decay"] * _norm(p), h["trust_coefficient"])
    buffer = h["momentum"] * state["momentum_buffer"] + size * decayed(p, g, h)
    return p - buffer, {"momentum_buffer": buffer, "size": h["momentum"] * state["size"] + size}


def lars_response(state: Mapping[str, Any], h: Hyper) -> "Tensor":
    """The buffer sums up steps of sizes of their own, and so does `size`."""
    return state["size"]


def adafactor_state(p: "Tensor") -> State:
    """Of a parameter (members, ..., rows, columns) the means over columns and over rows; of one (members, n) as it is."""
    if p.ndim > 2:
        return {"row_var": p.new_zeros(*p.shape[:-1], 1), "col_var": p.new_zeros(*p.shape[:-2], 1, p.shape[-1])}
    return zeros("variance")(p)


def adafactor_corrections(h: Numbers, counters: Numbers) -> dict[str, Any]:
    step = counters["step"]
    is_late = h["lr"] * step**0.5 > 1
    return {"rate": step ** h["beta2_decay"], "size": is_late / step**0.5 + (1 - is_late) * h["lr"]}


def adafactor(p: "Tensor", g: "Tensor", state: State, h: Hyper) -> tuple["Tensor", State]:
    """Shazeer & Stern 2018, Adafactor: Adaptive Learning Rates with Sublinear Memory Cost, as torch has it."""
    everywhere = tuple(range(1, p.ndim))
    alpha = _mean_square(p, dim=everywhere).sqrt().clamp(min=h["eps2"]) * h["size"]
    p = p * (1 - h["lr"] * h["weight_decay"])
    new = {}
    if p.ndim > 2:
        for name, axis in (("row_var", -1), ("col_var", -2)):
            new[name] = state[name] + h["rate"] * (_mean_square(g, dim=(axis,)) - state[name])
        mean = new["row_var"].mean(dim=-2, keepdim=True)
        estimate = new["row_var"] * new["col_var"] / mean.clamp(min=h["eps1"])
    else:
        estimate = new["variance"] = state["variance"] + h["rate"] * (g * g - state["variance"])
    update = g * estimate.clamp(min=h["eps1"] * h["eps1"]).rsqrt()
    excess = (_mean_square(update, dim=everywhere).sqrt() / h["d"]).clamp(min=1.0)
    return p - alpha / excess * update, new


def muon(p: "Tensor", g: "Tensor", state: State, h: Hyper) -> tuple["Tensor", State]:
    """Jordan et al. 2024, for weights (members, out, ...), each taken as a matrix: Nesterov's momentum, orthogonalised."""
    from ockham.optim.newton_schulz import orthogonalized

    buffer = state["momentum_buffer"] + (1 - h["momentum"]) * (g - state["momentum_buffer"])
    nesterov = g + h["momentum"] * (buffer - g)
    matrices = nesterov.flatten(2)
    rows, columns = matrices.shape[1:]
    direction = orthogonalized(matrices).view(p.shape) * max(1, rows / columns) ** 0.5
    return p * (1 - h["lr"] * h["weight_decay"]) - h["lr"] * direction, {"momentum_buffer": buffer}


LAMB = Rule(
    lamb,
    lamb_response,
    with_size("exp_avg", "exp_avg_sq"),
    {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-6, "weight_decay": 0.0},
    adam_corrections,
)
LARS = Rule(
    lars,
    lars_response,
    with_size("momentum_buffer"),
    {"lr": 1.0, "momentum": 0.9, "trust_coefficient": 1e-3, "weight_decay": 0.0},
    counters={},
    count=nothing,
)
ADAFACTOR = Rule(
    adafactor,
    "are scaled with the size of the whole parameter before it, which is not kept",
    adafactor_state,
    {"lr": 1e-2, "beta2_decay": -0.8, "eps1": None, "eps2": 1e-3, "d": 1.0, "weight_decay": 0.0},
    adafactor_corrections,
)
MUON = Rule(
    muon,
    "have one length, whatever the size of the gradient",
    zeros("momentum_buffer"),
    {"lr": 1e-3, "momentum": 0.95, "weight_decay": 0.0},
    counters={},
    count=nothing,
    others=("adam_lr",),
)
