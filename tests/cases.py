"""One row per yaml of each group: the overrides under which the generic tests run it. A yaml without a row fails a test."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

import formulas

CASES: dict[str, dict[str, list[str]]] = {
    "data": {
        "mnist5k": [],
        "mnist": ["data.root=mnist"],
        "fashion_mnist": [],
        "cifar10": [],
        "cifar100": [],
        "image_folder": ["data.root=images"],
        "mnist1d": ["data.label_noise=0.2"],
        "digits": ["data.shuffle_pixels=true"],
    },
    "augment": {
        "none": [],
        "shift": [],
        "flip_crop": [],
        "cutout": [],
        "random_erasing": [],
        "trivial_augment": [],
        "mixup": [],
        "cutmix": [],
    },
    "model": {
        "linear": [],
        "mlp": ["model.hidden=[16]"],
        "cnn": ["model.channels=[4,8]", "model.dense=16"],
        "lenet": [],
        "resnet": ["model.depth=8", "model.width=4"],
    },
    "optimizer": {
        "gd": ["trainer.max_epochs=4"],
        "sgd": [],
        "momentum": [],
        "nesterov": [],
        "asgd": ["optimizer.t0=5"],
        "adagrad": [],
        "adadelta": [],
        "rmsprop": [],
        "adam": [],
        "nadam": [],
        "adamw": [],
        "radam": [],
        "adamax": [],
        "adan": [],
        "ademamix": ["optimizer.alpha_warmup=10", "optimizer.beta3_warmup=10"],
        "signsgd": ["optimizer.momentum=0.9"],
        "lion": [],
        "rprop": ["trainer.max_epochs=4"],
        "adafactor": [],
        "lamb": [],
        "lars": [],
        "schedule_free_sgd": ["schedule=constant", "schedule.warmup_steps=5"],
        "schedule_free_adamw": ["schedule=constant"],
        "prodigy": [],
        "external": ["optimizer.name=soap"],
        "lbfgs": ["trainer.max_epochs=4", "optimizer.max_iter=5"],
        "muon": [],
    },
    "schedule": {
        "constant": [],
        "step": [],
        "multistep": [],
        "exponential": [],
        "linear": ["schedule.warmup_steps=5"],
        "cosine": [],
        "wsd": [],
        "cosine_restarts": [],
        "polynomial": [],
        "cyclic": [],
        "one_cycle": [],
        "inverse_sqrt": [],
        "plateau": ["schedule.patience=0"],
    },
    "reg": {
        "none": [],
        "l1": ["reg.l1.strength=1e-3"],
        "l2": [],
        "elastic_net": ["reg.elastic_net.strength=1e-3"],
        "weight_decay": ["reg.weight_decay.strength=0.1"],
        "group_lasso": ["reg.group_lasso.strength=1e-3"],
        "orthogonal": ["reg.orthogonal.strength=1e-2"],
        "max_norm": ["reg.max_norm.limit=0.5"],
        "magnitude_pruning": ["reg.magnitude_pruning.rewind_step=3"],
        "dropout": ["reg.dropout.input_rate=0.2"],
        "gaussian_dropout": ["reg.gaussian_dropout.input_rate=0.2"],
        "dropconnect": [],
        "stochastic_depth": ["model=resnet", "model.depth=8", "model.width=4"],
        "input_noise": [],
        "label_smoothing": [],
        "manifold_mixup": [],
        "r_drop": ["+reg.dropout._target_=ockham.reg.Dropout", "+reg.dropout.rate=0.3"],
        "confidence_penalty": [],
        "spectral_decoupling": [],
        "jacobian": [],
        "kl_sparsity": ["model.activation=sigmoid"],
        "spectral_norm": [],
        "sam": [],
        "asam": [],
        "gradient_noise": [],
        "gradient_centralization": [],
        "ema": ["reg.ema.decay=0.8"],
        "swa": ["reg.swa.start=0.5"],
        "lookahead": ["reg.lookahead.steps=3"],
        "early_stopping": ["reg.early_stopping.patience=1"],
    },
    "trainer": {"auto": [], "cpu": [], "gpu": [], "ddp": [], "smoke": []},
    "search": {"grid": [], "random": [], "qmc": [], "tpe": [], "gp": [], "cmaes": []},
    "prune": {"none": [], "asha": [], "median": []},
    "executor": {"processes": [], "inline": [], "ray": [], "slurm": []},
    "logger": {"tensorboard": [], "csv": []},
}


class Reference(NamedTuple):
    """What an optimizer's yaml stands for, written out with torch, or by the formula of its paper.

    `convex_lr` is a learning rate with which it reaches the minimum of a softmax regression within a thousand steps; None
    where proximal penalties are not minimised exactly.
    """

    torch: Callable[[Iterable[Tensor]], Optimizer]
    convex_lr: float | None


def prodigy(parameters: Iterable[Tensor]) -> Optimizer:
    from prodigyopt import Prodigy

    return Prodigy(parameters, lr=1.0, betas=(0.9, 0.999), d_coef=1.0, weight_decay=0)


REFERENCES: dict[str, Reference] = {
    "gd": Reference(lambda p: torch.optim.SGD(p, lr=0.5), 1.0),
    "sgd": Reference(lambda p: torch.optim.SGD(p, lr=0.1), 1.0),
    "momentum": Reference(lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9), 0.1),
    "nesterov": Reference(lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, nesterov=True), 0.1),
    "adagrad": Reference(lambda p: torch.optim.Adagrad(p, lr=0.02), 0.5),
    "adadelta": Reference(lambda p: torch.optim.Adadelta(p, lr=1.0, rho=0.9), 3.0),
    "rmsprop": Reference(lambda p: torch.optim.RMSprop(p, lr=1e-3, alpha=0.9), 0.02),
    "adam": Reference(lambda p: torch.optim.Adam(p, lr=1e-3, betas=(0.9, 0.999)), 0.02),
    "nadam": Reference(lambda p: torch.optim.NAdam(p, lr=1e-3, betas=(0.9, 0.999)), 0.02),
    "adamw": Reference(lambda p: torch.optim.AdamW(p, lr=1e-3, betas=(0.9, 0.999), weight_decay=0.01), 0.02),
    "asgd": Reference(lambda p: torch.optim.ASGD(p, lr=0.1, lambd=0, t0=0), None),
    "radam": Reference(lambda p: torch.optim.RAdam(p, lr=1e-3), 0.1),
    "adamax": Reference(lambda p: torch.optim.Adamax(p, lr=2e-3), 0.1),
    "adan": Reference(lambda p: formulas.Adan(p, lr=1e-3, betas=(0.98, 0.92, 0.99), eps=1e-8, weight_decay=0), 0.02),
    "ademamix": Reference(
        lambda p: formulas.AdEMAMix(
            p, lr=1e-3, betas=(0.9, 0.999, 0.9999), alpha=5, alpha_warmup=0, beta3_warmup=0, eps=1e-8, weight_decay=0
        ),
        0.02,
    ),
    "signsgd": Reference(lambda p: formulas.SignSGD(p, lr=1e-4, momentum=0, weight_decay=0), None),
    "lion": Reference(lambda p: formulas.Lion(p, lr=1e-4, betas=(0.9, 0.99), weight_decay=0), None),
    "rprop": Reference(lambda p: torch.optim.Rprop(p, lr=1e-3, etas=(0.5, 1.2), step_sizes=(1e-6, 50)), None),
    "adafactor": Reference(lambda p: torch.optim.Adafactor(p, lr=1e-2, eps=(1e-15, 1e-3)), None),
    "lamb": Reference(lambda p: formulas.Lamb(p, lr=1e-2, betas=(0.9, 0.999), eps=1e-6, weight_decay=0), 0.1),
    "lars": Reference(lambda p: formulas.Lars(p, lr=10.0, momentum=0.9, trust_coefficient=1e-3, weight_decay=0), 10.0),
    "schedule_free_sgd": Reference(lambda p: formulas.ScheduleFreeSGD(p, lr=1.0, momentum=0.9, weight_decay=0), None),
    "schedule_free_adamw": Reference(
        lambda p: formulas.ScheduleFreeAdamW(p, lr=2.5e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0), None
    ),
    "prodigy": Reference(prodigy, None),
    "lbfgs": Reference(
        lambda p: torch.optim.LBFGS(p, lr=1.0, max_iter=20, history_size=10, line_search_fn="strong_wolfe"), None
    ),
}
