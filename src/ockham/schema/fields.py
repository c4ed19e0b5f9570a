"""What each setting must be by itself."""

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ockham.core.target import parse_target
from ockham.errors import UserError
from ockham.schema.content import Content

OBJECTIVES = ("val/acc", "val/loss")
LOSSES = ("cross_entropy", "mse")
ACTIVATIONS = ("relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid")
PRECISIONS = ("32-true", "64-true", "bf16-mixed")

Check = Callable[[Any], str | None]
"""A check returns what the value must be, or None where it is."""


def number(low: float = -math.inf, high: float = math.inf, *, above: float | None = None, below: float | None = None) -> Check:
    """A finite number in [low, high], also above and below the exclusive bounds."""
    bounds = [f"at least {low:g}"] if low > -math.inf else []
    bounds += [f"above {above:g}"] if above is not None else []
    bounds += [f"at most {high:g}"] if high < math.inf else []
    bounds += [f"below {below:g}"] if below is not None else []
    meaning = " ".join(["a number", " and ".join(bounds)]).strip()

    def check(value: Any) -> str | None:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        inside = is_number and low <= value <= high
        inside = inside and (above is None or value > above) and (below is None or value < below)
        return None if inside else meaning

    return check


def integer(low: int | None = None) -> Check:
    meaning = "a whole number" if low is None else f"a whole number of at least {low}"

    def check(value: Any) -> str | None:
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        return None if is_integer and (low is None or value >= low) else meaning

    return check


def choice(*options: Any) -> Check:
    meaning = "one of " + ", ".join(str(option) for option in options)
    return lambda value: None if any(value == o and type(value) is type(o) for o in options) else meaning


def either(*checks: Check) -> Check:
    def check(value: Any) -> str | None:
        meanings = [each(value) for each in checks]
        return None if None in meanings else " or ".join(str(meaning) for meaning in meanings)

    return check


def listed(each: Check, *, length: int | None = None, at_least: int = 0) -> Check:
    def check(value: Any) -> str | None:
        size = "" if length is None else f"{length} "
        meaning = f"a list of {size}entries, each {each(None)}"
        is_list = isinstance(value, Sequence) and not isinstance(value, str)
        fits = is_list and len(value) >= at_least and (length is None or len(value) == length)
        return None if fits and all(each(entry) is None for entry in value) else meaning

    return check


def text(value: Any) -> str | None:
    return None if isinstance(value, str) and value else "a text"


def flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "true or false"


def target(value: Any) -> str | None:
    try:
        parse_target(str(value))
    except ValueError as error:
        return str(error)
    return None


absent: Check = lambda value: None if value is None else "null"  # noqa: E731

positive = number(above=0)
non_negative = number(0)
rate = number(0, below=1)
betas = either(listed(rate, length=2), listed(rate, length=3))

#: What each setting must be. A setting of a user's own class is not listed, and not checked here.
FIELDS: dict[str, Check] = {
    "seed": integer(0),
    "objective": choice(*OBJECTIVES),
    "loss": choice(*LOSSES),
    "test": flag,
    "measure": listed(text),
    "target": either(absent, target),
    "stop_at_target": flag,
    "resume": either(absent, text),
    "note": either(absent, text),
    "sweep": either(absent, text),
    "compare": either(absent, text, listed(text, at_least=1)),
    "budget": choice("trials", "flops"),
    "confirm": either(absent, choice("auto"), integer(2), listed(integer(0), at_least=2)),
    "resolve": either(absent, number(above=0)),
    "max_seeds": either(absent, integer(2)),
    "seeds": either(absent, integer(1), listed(integer(0), at_least=1)),
    "grids": either(absent, listed(listed(text, at_least=1), at_least=1)),
    "cv": either(absent, integer(2)),
    "fold": either(absent, integer(0)),
    "dry_run": flag,
    "fuse": choice("auto", "on", "off"),
    "report": flag,
    "retries": integer(0),
    "on_failure": choice("continue", "stop"),
    "max_failures": either(absent, integer(0)),
    "search.sampler": text,
    "search.trials": integer(1),
    "search.seed": integer(0),
    "search.batch": either(absent, integer(1)),
    "prune.rule": choice("none", "asha", "median"),
    "prune.min_epochs": integer(1),
    "prune.reduction": integer(2),
    "prune.min_peers": integer(1),
    "executor.name": choice("processes", "inline", "ray", "slurm"),
    "executor.address": either(absent, text),
    "executor.cluster": either(absent, choice("slurm", "local")),
    "executor.gpus_per_job": non_negative,
    "executor.partition": either(absent, text),
    "executor.account": either(absent, text),
    "executor.slots": either(absent, integer(1)),
    "executor.threads": either(absent, integer(1)),
    "executor.gpus": either(choice("auto"), listed(either(integer(0), text))),
    "executor.jobs_per_gpu": integer(1),
    "executor.timeout": either(absent, number(above=0)),
    "trust": listed(text),
    "data.root": either(absent, text),
    "data.size": integer(1),
    "data.shape": either(absent, listed(integer(1), at_least=1)),
    "data.num_classes": either(absent, integer(2)),
    "data.batch_size": either(choice("full"), integer(1)),
    "data.val_samples": either(absent, number(above=0)),
    "data.train_samples": either(absent, integer(1)),
    "data.label_noise": either(absent, number(0, 1)),
    "data.label_noise_kind": choice("symmetric", "pair", "permute"),
    "data.label_noise_val": flag,
    "data.shuffle_pixels": flag,
    "data.num_samples": integer(20),
    "data.train_split": number(above=0, below=1),
    "augment.pixels": integer(0),
    "augment.padding": integer(0),
    "augment.size": integer(1),
    "augment.alpha": positive,
    "augment.probability": number(above=0, high=1),
    "augment.min_area": number(above=0, below=1),
    "augment.max_area": number(above=0, below=1),
    "augment.min_aspect": number(above=0, high=1),
    "model.hidden": listed(integer(1)),
    "model.channels": listed(integer(1), at_least=1),
    "model.dense": integer(0),
    "model.activation": choice(*ACTIVATIONS),
    "model.batch_norm": flag,
    "model.layer_norm": flag,
    "model.init": choice("default", "he", "glorot", "orthogonal"),
    "model.init_scale": positive,
    "model.parametrization": choice("standard", "mup"),
    "model.base_width": either(absent, integer(1)),
    "model.pooling": choice("max", "avg"),
    "model.depth": integer(8),
    "model.width": integer(1),
    "optimizer.lr": positive,
    "optimizer.adam_lr": positive,
    "optimizer.weight_decay": non_negative,
    "optimizer.momentum": rate,
    "optimizer.nesterov": flag,
    "optimizer.name": either(absent, text),
    "optimizer.d_coef": positive,
    "optimizer.alpha": non_negative,
    "optimizer.alpha_warmup": integer(0),
    "optimizer.beta3_warmup": integer(0),
    "optimizer.beta2_decay": number(high=0),
    "optimizer.d": number(1),
    "optimizer.trust_coefficient": positive,
    "optimizer.lambd": non_negative,
    "optimizer.t0": non_negative,
    "optimizer.etas": listed(positive, length=2),
    "optimizer.step_sizes": listed(positive, length=2),
    "optimizer.rho": rate,
    "optimizer.eps": either(positive, listed(either(absent, positive), length=2)),
    "optimizer.betas": betas,
    "optimizer.max_iter": integer(1),
    "optimizer.history_size": integer(1),
    "optimizer.line_search_fn": either(absent, choice("strong_wolfe")),
    "optimizer.*": either(number(), flag, text, absent, listed(number())),
    "schedule.warmup_steps": integer(0),
    "schedule.every": number(above=0, below=1),
    "schedule.gamma": number(above=0, high=1),
    "schedule.milestones": listed(number(above=0, below=1)),
    "schedule.final": number(0, 1),
    "schedule.cycles": integer(1),
    "schedule.growth": number(1),
    "schedule.power": positive,
    "schedule.decay": number(above=0, high=1),
    "schedule.shape": choice("linear", "sqrt"),
    "schedule.low": number(0, below=1),
    "schedule.rise": number(above=0, below=1),
    "schedule.start_divisor": number(1),
    "schedule.final_divisor": number(1),
    "schedule.timescale": integer(1),
    "schedule.patience": integer(0),
    "schedule.min_delta": non_negative,
    "reg.*.strength": non_negative,
    "reg.*.include_bias": flag,
    "reg.*.scale": choice("sum", "half_mean"),
    "reg.*.method": choice("proximal", "subgradient"),
    "reg.*.l1_ratio": number(0, 1),
    "reg.*.limit": positive,
    "reg.*.alpha": positive,
    "reg.*.sparsity": number(above=0, below=1),
    "reg.*.rounds": integer(1),
    "reg.*.rewind_step": integer(0),
    "reg.*.scope": choice("global", "layer"),
    "reg.*.projections": either(choice("all"), integer(1)),
    "reg.*.rate": rate,
    "reg.*.input_rate": rate,
    "reg.*.std": non_negative,
    "reg.*.smoothing": rate,
    "reg.*.target": number(above=0, below=1),
    "reg.*.patience": integer(1),
    "reg.*.min_delta": non_negative,
    "reg.*.rho": positive,
    "reg.*.eta": positive,
    "reg.*.gamma": non_negative,
    "reg.*.decay": number(above=0, below=1),
    "reg.*.start": rate,
    "reg.*.steps": integer(2),
    "reg.*.step_size": number(above=0, below=1),
    "trainer.accelerator": choice("auto", "cpu", "gpu"),
    "trainer.devices": either(choice("auto"), integer(1)),
    "trainer.precision": choice(*PRECISIONS),
    "trainer.max_epochs": either(absent, integer(1)),
    "trainer.max_steps": either(absent, integer(1)),
    "trainer.accumulate_grad_batches": integer(1),
    "trainer.gradient_clip_val": either(absent, positive),
    "trainer.gradient_clip_algorithm": choice("norm", "value"),
    "trainer.evaluate_every": either(absent, integer(1)),
    "trainer.probe_samples": either(absent, integer(1)),
    "logger.tensorboard": flag,
}

#: Settings of a sweep as a whole: they are no part of what a job computes.
SWEEP_SETTINGS = (
    "sweep",
    "seeds",
    "compare",
    "budget",
    "confirm",
    "resolve",
    "max_seeds",
    "grids",
    "search",
    "prune",
    "dry_run",
    "report",
    "fuse",
    "retries",
    "on_failure",
    "max_failures",
    "executor",
)

#: Groups that make an object: a class of the user's own may have settings that are not in FIELDS.
OPEN_GROUPS = ("data", "augment", "model", "optimizer", "schedule", "reg")

#: Groups that every run has.
GROUPS = (*OPEN_GROUPS, "trainer", "logger")

#: So much of a value is shown.
SHOWN_CHARACTERS = 80


def field_of(path: str) -> str:
    """The key of FIELDS for a setting: a star stands for the name of a regularizer, and of a setting of one optimizer only,
    which the optimizer checks itself."""
    group, _, rest = path.partition(".")
    if group == "reg":
        return f"reg.*.{rest.partition('.')[2]}"
    return "optimizer.*" if group == "optimizer" and path not in FIELDS and "." not in rest else path


def shown(value: Any) -> str:
    """The value as a command line would say it, cut where it is long."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def check_fields(content: Content) -> None:
    """Raises UserError for a setting that does not exist, or has a value that it cannot have."""
    for group in GROUPS:
        if not isinstance(content.get(group), Mapping):
            none = f", or {group}=none" if group in ("augment", "reg") else ""
            raise UserError(f"{group}={shown(content.get(group))} is not possible: choose an option of conf/{group}{none}")
    for name, settings in content["reg"].items():
        if not isinstance(settings, Mapping) or "_target_" not in settings:
            raise UserError(f"reg.{name} is set, but {name} is not chosen\nadd reg={name}")
    for key, value in content.items():
        if isinstance(value, Mapping) and key not in FIELDS:
            _check_nested(value, f"{key}.")
        else:
            _check_field(key, value)


def _check_nested(content: Content, prefix: str) -> None:
    for key, value in content.items():
        path = f"{prefix}{key}"
        # A class of the user's own may have nested settings; one that FIELDS knows has none.
        if isinstance(value, Mapping) and field_of(path) not in set(FIELDS) - {"optimizer.*"}:
            _check_nested(value, f"{path}.")
        else:
            _check_field(path, value)


def _check_field(path: str, value: Any) -> None:
    field = FIELDS.get(field_of(path))
    if field is None:
        if path.partition(".")[0] in OPEN_GROUPS:
            return
        near = difflib.get_close_matches(path, FIELDS, n=1)
        raise UserError(f"{path} is no setting of Ockham" + (f": did you mean {near[0]}?" if near else ""))
    meaning = field(value)
    if meaning is not None:
        raise UserError(f"{path}={shown(value)} is not possible: it must be {meaning}")
