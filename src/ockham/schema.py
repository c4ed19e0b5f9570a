"""Whether a configuration makes sense, checked before torch is imported. Every error names the override to change."""

import difflib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ockham.core.shapes import check_halvings, image_shape
from ockham.errors import UserError
from ockham.optim.rules import rule_of

OBJECTIVES = ("val/acc", "val/loss")
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
        meanings = [own(value) for own in checks]
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


absent: Check = lambda value: None if value is None else "null"  # noqa: E731

positive = number(above=0)
non_negative = number(0)
rate = number(0, below=1)
betas = listed(rate, length=2)

#: What each setting must be. A setting of a user's own class is not listed, and not checked here.
FIELDS: dict[str, Check] = {
    "seed": integer(0),
    "objective": choice(*OBJECTIVES),
    "resume": either(absent, text),
    "sweep": either(absent, text),
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
    "augment.pixels": integer(0),
    "augment.padding": integer(0),
    "augment.size": integer(1),
    "augment.alpha": positive,
    "model.hidden": listed(integer(1)),
    "model.channels": listed(integer(1), at_least=1),
    "model.dense": integer(0),
    "model.activation": choice(*ACTIVATIONS),
    "model.batch_norm": flag,
    "model.pooling": choice("max", "avg"),
    "model.depth": integer(8),
    "model.width": integer(1),
    "optimizer.lr": positive,
    "optimizer.adam_lr": positive,
    "optimizer.weight_decay": non_negative,
    "optimizer.momentum": rate,
    "optimizer.nesterov": flag,
    "optimizer.alpha": rate,
    "optimizer.rho": rate,
    "optimizer.eps": positive,
    "optimizer.betas": betas,
    "optimizer.max_iter": integer(1),
    "optimizer.history_size": integer(1),
    "optimizer.line_search_fn": either(absent, choice("strong_wolfe")),
    "optimizer.*": either(number(), flag, text, absent, listed(number())),
    "schedule.warmup_steps": integer(0),
    "schedule.every": number(above=0, high=1),
    "schedule.gamma": number(above=0, high=1),
    "schedule.milestones": listed(number(above=0, below=1)),
    "schedule.final": number(0, 1),
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
    "reg.*.rate": rate,
    "reg.*.input_rate": rate,
    "reg.*.std": non_negative,
    "reg.*.smoothing": rate,
    "reg.*.target": number(above=0, below=1),
    "reg.*.patience": integer(1),
    "reg.*.min_delta": non_negative,
    "trainer.accelerator": choice("auto", "cpu", "gpu"),
    "trainer.devices": either(choice("auto"), integer(1)),
    "trainer.precision": choice(*PRECISIONS),
    "trainer.max_epochs": either(absent, integer(1)),
    "trainer.max_steps": either(absent, integer(1)),
    "trainer.accumulate_grad_batches": integer(1),
    "trainer.gradient_clip_val": either(absent, positive),
    "trainer.gradient_clip_algorithm": choice("norm", "value"),
    "logger.tensorboard": flag,
}

#: Settings of a sweep as a whole: they are no part of what a job computes.
SWEEP_SETTINGS = (
    "sweep",
    "seeds",
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


#: In a yaml: what a search samples where the command gives no range. No setting of a run.
RANGES = "ranges"


def field_of(path: str) -> str:
    """The key of FIELDS for a setting: a star stands for the name of a regularizer, and of a setting of one optimizer only,
    which the optimizer checks itself."""
    group, _, rest = path.partition(".")
    if group == "reg":
        return f"reg.*.{rest.partition('.')[2]}"
    return "optimizer.*" if group == "optimizer" and path not in FIELDS and "." not in rest else path


Content = Mapping[str, Any]
"""A configuration, or a part of one, in plain containers."""


def container(config: DictConfig) -> dict[str, Any]:
    """The settings in plain nested containers. Raises UserError for an interpolation that leads nowhere."""
    return without_ranges(resolved(config))


def resolved(config: DictConfig) -> dict[str, Any]:
    """The same with the ranges that options declare."""
    try:
        content = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key} cannot be resolved: {str(error).splitlines()[0]}") from error
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def without_ranges(content: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        str(key): without_ranges(value) if isinstance(value, Mapping) else value
        for key, value in content.items()
        if key != RANGES
    }


def leaves(content: Content, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All settings as (dotted path, value); a list counts as a value."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def check(content: Content) -> list[str]:
    """Raises UserError for a setting that cannot be right; returns warnings about those that probably are not."""
    for path, value in leaves(content):
        own = FIELDS.get(field_of(path))
        if own is None and path.partition(".")[0] not in OPEN_GROUPS:
            near = difflib.get_close_matches(path, FIELDS, n=1)
            raise UserError(f"{path} is no setting of Ockham" + (f": did you mean {near[0]}?" if near else ""))
        meaning = own(value) if own else None
        if meaning is not None:
            raise UserError(f"{path}={_shown(value)} is not possible: it must be {meaning}")
    _check_length(content)
    _check_fold(content)
    _check_full_batch(content)
    _check_hidden(content)
    _check_input(content)
    _check_activation(content)
    return [*_decay_warnings(content), *_proximal_warnings(content)]


def _shown(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _target(content: Content, group: str) -> str:
    """The last part of a group's _target_: the name of the class."""
    return str(content[group].get("_target_", "")).rpartition(".")[2]


def _check_length(content: Content) -> None:
    if content["trainer"]["max_epochs"] is None and content["trainer"]["max_steps"] is None:
        raise UserError("trainer.max_epochs and trainer.max_steps are both null: set one of them")


def _check_fold(content: Content) -> None:
    fold, cv = content["fold"], content["cv"]
    if fold is not None and (cv is None or fold >= cv):
        raise UserError(f"fold={fold} is one of cv folds, but cv={_shown(cv)}: set cv above {fold}")


def _check_full_batch(content: Content) -> None:
    batch_size = content["data"]["batch_size"]
    if _target(content, "optimizer") == "LBFGS" and batch_size != "full":
        raise UserError(
            f"optimizer=lbfgs needs the whole training split in every step, but data.batch_size={batch_size}: "
            f"set data.batch_size=full, or optimizer=adam"
        )


def _check_hidden(content: Content) -> None:
    if _target(content, "optimizer") != "Muon":
        return
    model = _target(content, "model")
    if model == "Linear" or (model == "MLP" and not content["model"]["hidden"]):
        raise UserError("optimizer=muon works on hidden layers and this model has none: set optimizer=adam, or model=mlp")


def _check_input(content: Content) -> None:
    shape = content["data"].get("shape")
    if shape is None:
        return
    model = _target(content, "model")
    if model in ("CNN", "LeNet", "ResNet"):
        image_shape(shape, model.lower())
    if model == "CNN":
        check_halvings(shape, content["model"]["channels"])
    if len(shape) != 3 and "_target_" in content["augment"]:
        raise UserError(f"augmentation moves images, but data.shape={list(shape)} is flat: set augment=none")


def _check_activation(content: Content) -> None:
    if "kl_sparsity" in content["reg"] and content["model"].get("activation") != "sigmoid":
        raise UserError(
            "reg=kl_sparsity compares mean activations with a probability and needs activations between 0 and 1: set "
            "model.activation=sigmoid (with model=mlp, cnn or lenet)"
        )


def _decay_warnings(content: Content) -> Iterator[str]:
    decays = [f"reg={name}" for name in ("l2", "elastic_net", "weight_decay") if name in content["reg"]]
    if content["optimizer"].get("weight_decay"):
        decays.append(f"optimizer.weight_decay={content['optimizer']['weight_decay']}")
    if len(decays) > 1:
        yield f"{' and '.join(decays)} shrink the same weights: their effects add up, keep one of them to study it"


def _proximal_warnings(content: Content) -> Iterator[str]:
    target = str(content["optimizer"].get("_target_"))
    try:
        rule, _ = rule_of(target, {name: value for name, value in content["optimizer"].items() if name != "_target_"})
        reason = "" if rule.response is not None else f"steps of {_target(content, 'optimizer')} have one length"
    except ValueError as error:
        reason = str(error)
    for name in ("l1", "elastic_net", "group_lasso"):
        if reason and name in content["reg"] and content["reg"][name].get("method") != "subgradient":
            instead = "" if name == "group_lasso" else f", or reg.{name}.method=subgradient"
            yield (
                f"{reason}: reg={name} shrinks weights by lr times its strength after each step, and what is minimised is not "
                f"the penalised loss. Set optimizer=adam{instead} where it has to be"
            )
