"""Configuration -> objects: the only place where a _target_ is resolved, after a check against the allowlist."""

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim import Optimizer

from ockham.core import mup
from ockham.core.clipping import Clipping
from ockham.core.target import parse_target
from ockham.data import (
    Augment,
    DataSet,
    InputSpec,
    LabelNoise,
    Normalize,
    Source,
    Splits,
    TrivialAugment,
    divide,
    pixel_order,
)
from ockham.errors import UserError
from ockham.optim.external import needs_graph
from ockham.optim.groups import make_optimizer
from ockham.optim.responses import judges_average
from ockham.reg import Context, Regularizer
from ockham.reg.base import has_hook
from ockham.reg.single import attach
from ockham.rng import Streams
from ockham.run import Run, Settings, memory_format_of
from ockham.schedules import Schedule
from ockham.schema import container
from ockham.schema.consistency import check_pruning, check_warmup

#: Packages whose classes a configuration may name; `trust` on the command line adds to them.
ALLOWED = ("ockham", "torch.optim", "torch.nn", "torch.optim.lr_scheduler")

#: Settings of the group `data` that are not the data set's own: what is done with it for a run, and with its labels.
RUN_KEYS = ("shape", "num_classes", "val_samples", "train_samples", "batch_size")
LABEL_NOISE_KEYS = ("label_noise", "label_noise_kind", "label_noise_val")

T = TypeVar("T")


def runs(configs: Sequence[DictConfig]) -> Iterator[Run | Exception]:
    """Several runs, those that agree in it with their data in memory once; or what keeps one of them from being built."""
    shared: dict[str, tuple[Splits, Normalize]] = {}
    for config in configs:
        key = repr([container(config.data), config.seed if _is_drawn(config) else None, config.cv, config.fold])
        try:
            if key not in shared:
                shared[key] = data_of(config)
            built = run(config, data=shared[key])
        except Exception as error:
            yield error
        else:
            yield built


def _is_drawn(config: DictConfig) -> bool:
    """Whether the splits depend on the seed."""
    data = config.data
    return any(value is not None for value in (config.fold, data.val_samples, data.train_samples, data.get("label_noise")))


def data_of(config: DictConfig) -> tuple[Splits, Normalize]:
    """The splits of a run, and how their images become a model's input."""
    splits = splits_of(config)
    return splits, Normalize.fit(splits.train, _shape(config, splits))


def run(config: DictConfig, *, rank: int = 0, data: tuple[Splits, Normalize] | None = None) -> Run:
    """Everything a run consists of, in the order in which the parts depend on one another; `data` where it is there already.

    Raises UserError, naming the override to change, for settings that do not fit the data or each other.
    """
    streams = Streams(config.seed, rank=rank)
    splits, normalize = data or data_of(config)
    _check_num_classes(config, splits)
    regularizers = regularizers_of(config)
    model = model_of(config, normalize.shape, len(splits.classes), streams)
    settings = settings_of(config, num_samples=len(splits.train))
    built = Run(
        settings=settings,
        splits=splits,
        normalize=normalize,
        augment=augment_of(config),
        model=model,
        regularizers=regularizers,
        make_optimizer=optimizer_of(config),
        schedule=_construct(config, "schedule", Schedule, {}),
        streams=streams,
    )
    context = Context(streams, len(splits.train), len(splits.classes), built.steps_per_epoch, built.total_steps)
    attach(regularizers, model, context)
    model.to(memory_format=memory_format_of(model))
    _check_batch_norm(built)
    _check_bytes(built)
    check_warmup(built.schedule.warmup_steps, built.steps_per_training)
    check_pruning(container(config), epochs=built.num_epochs, steps=built.steps_per_training)
    _check_around_the_step(built, built.make_optimizer(model))  # which says what it refuses
    return built


def resolve(target: str, expected: type[T], *, setting: str, trust: Sequence[str] = ()) -> type[T]:
    """The class that `target` names.

    Raises UserError where it is outside the allowlist, absent, or not a kind of `expected`. A module is imported by its
    name only: attributes are not walked, so that an allowed module is no way to what it imports itself.
    """
    module_name, _, name = target.rpartition(".")
    allowed = (*ALLOWED, *trust)
    if not any(module_name == package or module_name.startswith(f"{package}.") for package in allowed):
        raise UserError(
            f"{setting}={target} is outside the packages that may be used ({', '.join(allowed)})\n"
            f"if you trust it, add trust=[{module_name.partition('.')[0]}] on the command line"
        )
    try:
        cls = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{setting}={target} cannot be found: {error}") from error
    defined_in = str(getattr(cls, "__module__", ""))
    inside = any(defined_in == package or defined_in.startswith(f"{package}.") for package in allowed)
    if not (inside and isinstance(cls, type) and issubclass(cls, expected)):
        raise UserError(f"{setting}={target} is not a {expected.__name__}, or is defined outside the allowed packages")
    return cls


def _construct(config: DictConfig, path: str, expected: type[T], extra: Mapping[str, Any], drop: Sequence[str] = ()) -> T:
    """The object of the group at `path`, from its own settings and `extra`."""
    node = OmegaConf.select(config, path)
    settings = {str(key): value for key, value in container(node).items() if key != "_target_" and key not in drop}
    cls = resolve(_target_of(config, path), expected, setting=f"{path}._target_", trust=config.trust)
    accepted = inspect.signature(cls).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    unknown = [key for key in settings if key not in accepted]
    if unknown and not takes_all:
        raise UserError(f"{path}.{unknown[0]} is no setting of {cls.__name__}: it takes {', '.join(accepted)}")
    missing = [
        key
        for key, parameter in accepted.items()
        if parameter.default is parameter.empty and key not in settings and key not in extra and parameter.kind not in (2, 4)
    ]
    if missing:
        raise UserError(f"{path}.{missing[0]} is missing: {cls.__name__} needs it; set +{path}.{missing[0]}=...")
    numbers = {key: float(value) for key, value in settings.items() if type(value) is int and _takes_float(accepted.get(key))}
    return cls(**extra, **{**settings, **numbers})


def _takes_float(parameter: inspect.Parameter | None) -> bool:
    """Whether 1 means 1.0: regularizers tell their numbers from what is fixed by the type."""
    return parameter is not None and parameter.annotation in (float, "float")


def _target_of(config: DictConfig, path: str) -> str:
    target = OmegaConf.select(config, f"{path}._target_")
    if not isinstance(target, str):
        raise UserError(f"{path}._target_ is missing: choose one of the options of conf/{path.partition('.')[0]}")
    return target


def splits_of(config: DictConfig) -> Splits:
    """The splits that this run uses, in memory."""
    data = config.data
    splits = divide(
        source_of(config),
        val_samples=data.val_samples,
        train_samples=data.train_samples,
        seed=config.seed,
        fold=None if config.fold is None else (config.fold, config.cv),
    )
    if data.get("label_noise") is None:
        return splits
    noise = LabelNoise(data.label_noise, data.get("label_noise_kind", "symmetric"), data.get("label_noise_val", False))
    return noise.applied(splits, seed=config.seed)


#: The data set that was read last, by its settings: the jobs that a slot of a sweep works on share one, nearly always.
_last_source: dict[str, Source] = {}


def source_of(config: DictConfig) -> Source:
    """The data set as it is before a run draws its splits, with its pixels in the order that the settings ask for."""
    drop = (*RUN_KEYS, *LABEL_NOISE_KEYS)
    key = repr([{name: value for name, value in container(config.data).items() if name not in drop}, config.trust])
    if key not in _last_source:
        _last_source.clear()  # before the next is read: two may not fit
        # mypy takes a protocol for an abstract class, of which no object can be made; none is.
        data_set = _construct(config, "data", DataSet, {}, drop=(*drop, "shuffle_pixels"))  # type: ignore[type-abstract]
        source = data_set.load()
        if config.data.get("shuffle_pixels"):
            source = source.with_pixels_in_order(pixel_order(source.train.image_shape))
        _last_source[key] = source
    return _last_source[key]


def _shape(config: DictConfig, splits: Splits) -> tuple[int, ...]:
    """The shape in which the model sees an image: data.shape where given, otherwise that of the images."""
    image_shape = splits.train.image_shape
    if config.data.shape is None:
        return image_shape
    shape = tuple(config.data.shape)
    if torch.Size(shape).numel() != torch.Size(image_shape).numel():
        raise UserError(
            f"data.shape={list(shape)} does not hold the {torch.Size(image_shape).numel()} numbers of an image {image_shape}"
        )
    return shape


def model_of(config: DictConfig, shape: Sequence[int], num_classes: int, streams: Streams) -> nn.Module:
    """The model with its initial weights, which depend on the seed and the model alone; mup depends on the optimizer too."""
    extra: dict[str, Any] = {"shape": shape, "num_classes": num_classes}
    if config.model.get("parametrization") == "mup":
        extra["adaptive"] = config.optimizer.get("_target_") in mup.ADAPTIVE
    with streams.global_seed("initialization"):
        try:
            return _construct(config, "model", nn.Module, extra)
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
                raise
            raise UserError(f"the model does not fit into memory: make it smaller, {_words(config, 'model')}") from error


def _words(config: DictConfig, group: str) -> str:
    """What a command line would say to get the settings of the group."""
    settings = container(config[group])
    return " ".join(f"{group}.{key}={value}" for key, value in settings.items() if key != "_target_")


def trained_model(config: DictConfig, input_spec: InputSpec, weights: Mapping[str, torch.Tensor]) -> nn.Module:
    """The model of a run folder from its configuration and checkpoint alone, ready to evaluate."""
    streams = Streams(config.seed)
    model = model_of(config, input_spec.shape, len(input_spec.classes), streams)
    context = Context(streams=streams, num_samples=1, num_classes=len(input_spec.classes))
    attach(regularizers_of(config), model, context)  # they may have added parameters
    dtype = next(weight.dtype for weight in weights.values() if weight.is_floating_point())
    model.to(dtype=dtype, memory_format=memory_format_of(model))  # type: ignore[call-overload]
    model.load_state_dict(weights)
    return model.eval()


def regularizers_of(config: DictConfig) -> tuple[Regularizer, ...]:
    """In alphabetical order of their keys, so that reg=[a,b] and reg=[b,a] are one run."""
    return tuple(_construct(config, f"reg.{name}", Regularizer, {}) for name in sorted(config.reg))


def augment_of(config: DictConfig) -> Augment | None:
    return _construct(config, "augment", Augment, {}) if "_target_" in config.augment else None


def optimizer_of(config: DictConfig) -> Callable[[nn.Module], Optimizer]:
    """Makes the optimizer for a model that stands on its device."""
    cls = resolve(_target_of(config, "optimizer"), Optimizer, setting="optimizer._target_", trust=config.trust)
    settings = {key: value for key, value in container(config.optimizer).items() if key != "_target_"}
    return partial(make_optimizer, cls, settings=settings)


def settings_of(config: DictConfig, *, num_samples: int) -> Settings:
    full = config.data.batch_size == "full"
    trainer = config.trainer
    limit = trainer.gradient_clip_val
    accelerator = _accelerator(trainer.accelerator)
    return Settings(
        seed=config.seed,
        objective=config.objective,
        loss=config.loss,
        batch_size=num_samples if full else min(config.data.batch_size, num_samples),
        shuffle=not full,
        max_epochs=trainer.max_epochs,
        max_steps=trainer.max_steps,
        accumulate=trainer.accumulate_grad_batches,
        clipping=None if limit is None else Clipping(limit, trainer.gradient_clip_algorithm),
        accelerator=accelerator,
        devices=_devices(trainer.devices, accelerator),
        precision=trainer.precision,
        probe_samples=trainer.probe_samples,
        evaluate_every=trainer.evaluate_every,
        test=config.test,
        measure=tuple(config.measure),
        target=None if config.target is None else parse_target(config.target),
        stop_at_target=config.stop_at_target,
    )


def _accelerator(setting: str) -> str:
    """cuda or cpu; Apple's GPUs lack float64, in which metrics are summed, and are not used."""
    available = torch.cuda.is_available()
    if setting == "gpu" and not available:
        raise UserError("trainer.accelerator=gpu, but torch sees no CUDA GPU here: set trainer=cpu or trainer=auto")
    return "cuda" if available and setting != "cpu" else "cpu"


def _devices(setting: int | str, accelerator: str) -> int:
    present = torch.cuda.device_count() if accelerator == "cuda" else None
    if setting == "auto":
        return present or 2
    assert isinstance(setting, int)
    if present is not None and setting > present:
        raise UserError(f"trainer.devices={setting}, but torch sees {present} GPUs: set trainer.devices={present}")
    return setting


def _check_num_classes(config: DictConfig, splits: Splits) -> None:
    configured, present = config.data.num_classes, len(splits.classes)
    if configured is not None and configured != present:
        raise UserError(f"data.num_classes={configured}, but the data have {present} classes: leave it out")


def _check_around_the_step(built: Run, optimizer: Optimizer) -> None:
    """What the schema does not see of classes from elsewhere."""
    averaging = [type(regularizer).__name__ for regularizer in built.regularizers if has_hook(regularizer, "after_step")]
    if judges_average(optimizer):
        averaging.append(type(optimizer).__name__)
    if len(averaging) > 1:
        raise UserError(f"{' and '.join(averaging)} each judge the run by an average of its weights: leave all but one out")
    if built.passes > 1 and needs_graph(optimizer):
        raise UserError(
            f"{type(optimizer).__name__} differentiates its gradients again, which reg=sam and reg=asam take in another place: "
            f"leave them out, or set another optimizer.name"
        )


def _check_bytes(built: Run) -> None:
    images = built.splits.train.pool.images
    if isinstance(built.augment, TrivialAugment) and (images.dtype != torch.uint8 or images.shape[1] not in (1, 3)):
        kind = "bytes" if images.dtype == torch.uint8 else "numbers that are no bytes"
        raise UserError(
            f"augment=trivial_augment changes the light and colour of gray or RGB images, but these have {images.shape[1]} "
            f"channels of {kind}: set augment=none, or one that needs no colour, like random_erasing"
        )


def _check_batch_norm(built: Run) -> None:
    settings, num_samples = built.settings, len(built.splits.train)
    has_batch_norm = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in built.model.modules())
    if has_batch_norm and 1 in (settings.batch_size, num_samples % settings.batch_size):
        raise UserError(
            f"batch norm needs two samples in a batch, but {num_samples} training images in batches of {settings.batch_size} "
            f"leave one with a single sample: set data.batch_size={settings.batch_size + 1}, or model.batch_norm=false"
        )
