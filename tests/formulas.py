"""Optimizers that torch does not have, as their papers write them: what the classes and rules of Ockham are compared with."""

from collections.abc import Callable
from math import exp, log
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Formula(Optimizer):
    """A step is `updated`, for each parameter by itself; t is the number of the step, from 1, and `memory` is kept."""

    def __init__(self, params: Any, **settings: Any) -> None:
        super().__init__(params, settings)

    def updated(self, w: Tensor, g: Tensor, t: int, memory: dict[str, Any], h: dict[str, Any]) -> Tensor:
        raise NotImplementedError

    def step(self, closure: Callable[[], Tensor] | None = None) -> None:
        if closure is not None:
            closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                state["t"] = state.get("t", 0) + 1
                with torch.no_grad():
                    parameter.copy_(self.updated(parameter, parameter.grad, state["t"], state, group))


class Lion(Formula):
    """Chen et al. 2023, algorithm 2."""

    def updated(self, w: Tensor, g: Tensor, t: int, memory: dict[str, Any], h: dict[str, Any]) -> Tensor:
        beta1, beta2 = h["betas"]
        m = memory.get("m", torch.zeros_like(w))
        c = beta1 * m + (1 - beta1) * g
        memory["m"] = beta2 * m + (1 - beta2) * g
        return w - h["lr"] * (torch.sign(c) + h["weight_decay"] * w)


class SignSGD(Formula):
    """Bernstein et al. 2018, algorithm 1, and with momentum 2."""

    def updated(self, w: Tensor, g: Tensor, t: int, memory: dict[str, Any], h: dict[str, Any]) -> Tensor:
        memory["m"] = h["momentum"] * memory.get("m", torch.zeros_like(w)) + (1 - h["momentum"]) * g
        return w - h["lr"] * (torch.sign(memory["m"]) + h["weight_decay"] * w)


class Adan(Formula):
    """Xie et al. 2024, algorithm 1, with its betas as 1 minus those of the code, and the code's corrections of the bias."""

    def updated(self, w: Tensor, g: Tensor, t: int, memory: dict[str, Any], h: dict[str, Any]) -> Tensor:
        b1, b2, b3 = (1 - beta for beta in h["betas"])
        before = memory.get("g", g)
        m, v, n = (memory.get(name, torch.zeros_like(w)) for name in "mvn")
        m = (1 - b1) * m + b1 * g
        v = (1 - b2) * v + b2 * (g - before)
        n = (1 - b3) * n + b3 * (g + (1 - b2) * (g - before)) ** 2
        memory.update(g=g.clone(), m=m, v=v, n=n)
        eta = h["lr"] / (torch.sqrt(n / (1 - (1 - b3) ** t)) + h["eps"])
        mean = m / (1 - (1 - b1) ** t) + (1 - b2) * v / (1 - (1 - b2) ** t)
        return (w - eta * mean) / (1 + h["weight_decay"] * h["lr"])


class AdEMAMix(Formula):
    """Pagliardini et al. 2025, algorithm 1."""

    def updated(self, w: Tensor, g: Tensor, t: int, memory: dict[str, Any], h: dict[str, Any]) -> Tensor:
        b1, b2, b3 = h["betas"]
        alpha = h["alpha"] * (min(t / h["alpha_warmup"], 1) if h["alpha_warmup"] else 1)
        if h["beta3_warmup"]:
            done = t / h["beta3_warmup"]
            b3 = min(exp(log(b1) * log(b3) / ((1 - done) * log(b3) + done * log(b1))), b3) if done < 1 else b3
        m1, m2, nu = (memory.get(name, torch.zeros_like(w)) for name in ("m1", "m2", "nu"))
        m1 = b1 * m1 + (1 - b1) * g
        m2 = b3 * m2 + (1 - b3) * g
        nu = b2 * nu + (1 - b2) * g**2
        memory.update(m1=m1, m2=m2, nu=nu)
        m1, nu = m1 / (1 - b1**t), nu / (1 - b2**t)
        return w - h["lr"] * ((m1 + alpha * m2) / (torch.sqrt(nu) + h["eps"]) + h["weight_decay"] * w)


class Lamb(Formula):
    """You et al. 2020, algorithm 2, with phi(z) = z."""

    def updated(self, w: Tensor, g: Tensor, t: int, memory: dict[str, Any], h: dict[str, Any]) -> Tensor:
        beta1, beta2 = h["betas"]
        m = memory["m"] = beta1 * memory.get("m", torch.zeros_like(w)) + (1 - beta1) * g
        v = memory["v"] = beta2 * memory.get("v", torch.zeros_like(w)) + (1 - beta2) * g * g
        r = m / (1 - beta1**t) / (torch.sqrt(v / (1 - beta2**t)) + h["eps"])
        direction = r + h["weight_decay"] * w
        ratio = torch.linalg.norm(w) / torch.linalg.norm(direction) if w.any() and direction.any() else 1.0
        return w - h["lr"] * ratio * direction


class Lars(Formula):
    """You et al. 2017, algorithm 1."""

    def updated(self, w: Tensor, g: Tensor, t: int, memory: dict[str, Any], h: dict[str, Any]) -> Tensor:
        decay = h["weight_decay"]
        size = torch.linalg.norm(g) + decay * torch.linalg.norm(w)
        local = h["trust_coefficient"] * torch.linalg.norm(w) / size if w.any() and g.any() else 1.0
        memory["v"] = h["momentum"] * memory.get("v", torch.zeros_like(w)) + h["lr"] * local * (g + decay * w)
        return w - memory["v"]


class ScheduleFree(Formula):
    """Defazio et al. 2024, equations 9 to 11 with three sequences, and the weights c of their code, for a warm-up."""

    def moved(self, w: Tensor, direction: Tensor, beta: float, memory: dict[str, Any], h: dict[str, Any]) -> Tensor:
        z, x = memory.get("z", w.clone()), memory.get("x", w.clone())
        memory["weights"] = memory.get("weights", 0.0) + h["lr"] ** 2
        c = h["lr"] ** 2 / memory["weights"]
        z = z - h["lr"] * direction
        x = (1 - c) * x + c * z
        memory.update(z=z, x=x)
        return (1 - beta) * z + beta * x


class ScheduleFreeSGD(ScheduleFree):
    def updated(self, w: Tensor, g: Tensor, t: int, memory: dict[str, Any], h: dict[str, Any]) -> Tensor:
        return self.moved(w, g + h["weight_decay"] * w, h["momentum"], memory, h)


class ScheduleFreeAdamW(ScheduleFree):
    def updated(self, w: Tensor, g: Tensor, t: int, memory: dict[str, Any], h: dict[str, Any]) -> Tensor:
        beta1, beta2 = h["betas"]
        v = memory["v"] = beta2 * memory.get("v", torch.zeros_like(w)) + (1 - beta2) * g * g
        direction = g / (torch.sqrt(v / (1 - beta2**t)) + h["eps"]) + h["weight_decay"] * w
        return self.moved(w, direction, beta1, memory, h)
