"""Settings against each other: what contradicts something else, or changes nothing and so cannot be what was meant."""

import difflib
from collections.abc import Iterator, Sequence
from math import ceil, prod

from ockham.core import mup
from ockham.core.datasets import Sizes, check_folds, check_train_samples, drawn_for_validation, sizes_of
from ockham.core.measures import MEASURES
from ockham.core.shapes import check_depth, check_halvings, check_lenet, image_shape
from ockham.core.steps import AVERAGING, CHANGING_GRADIENTS, PERTURBING, check_lookahead, check_swa
from ockham.errors import UserError
from ockham.optim.catalogue import NON_COMMERCIAL, check_name, key_of
from ockham.optim.rules import PARTS, RULES, rule_of
from ockham.schema.content import Content
from ockham.schema.fields import shown

#: Settings of executor=processes that one job after the other has no use for, as they are where nobody set them.
UNUSED_INLINE = {"slots": None, "threads": None, "gpus": "auto", "jobs_per_gpu": 1, "timeout": None}


def check_consistency(content: Content) -> None:
    """Raises UserError for settings that contradict each other, or that act on nothing."""
    _check_data(content)
    _check_fold(content)
    _check_full_batch(content)
    _check_length(content)
    _check_measure(content)
    _check_target(content)
    _check_optimizer(content)
    _check_model(content)
    _check_augment(content)
    _check_regularizers(content)
    _check_magnitude_pruning(content)
    _check_around_the_step(content)
    _check_prune(content)
    check_sweep_consistency(content)


def warnings(content: Content) -> Iterator[str]:
    """What is probably not meant."""
    yield from _decay_warnings(content)
    yield from _proximal_warnings(content)
    yield from _average_warnings(content)
    yield from _licence_warnings(content)
    yield from _noise_warnings(content)
    yield from _patience_warnings(content)
    yield from _size_warnings(content)


def class_name(content: Content, group: str) -> str:
    """The last part of a group's _target_."""
    return str(content[group].get("_target_", "")).rpartition(".")[2]


# -- what is known of the data -----------------------------------------------------------------------------------------------


def training_images(content: Content) -> int | None:
    """The images that the run trains on; None where only the data can tell. Of folds the smaller number."""
    data, sizes = content["data"], sizes_of(content["data"])
    if data["train_samples"] is not None:
        return int(data["train_samples"])
    return None if sizes is None else _available(content, sizes)


def _available(content: Content, sizes: Sizes) -> int:
    """The images of the training split before data.train_samples are drawn from it."""
    if content["cv"] is not None:
        total = sizes.train + (sizes.val or 0)
        return total - ceil(total / content["cv"])
    if sizes.val is not None or content["data"]["val_samples"] is None:
        return sizes.train
    val_samples = content["data"]["val_samples"]
    return sizes.train - drawn_for_validation(val_samples, train=sizes.train, num_classes=sizes.num_classes)


def steps_per_epoch(content: Content) -> int | None:
    """Optimizer steps of an epoch; None where only the data can tell."""
    images, batch_size = training_images(content), content["data"]["batch_size"]
    if batch_size == "full":
        return 1
    if images is None:
        return None
    return ceil(images / (min(batch_size, images) * content["trainer"]["accumulate_grad_batches"]))


def most_steps(content: Content) -> int | None:
    """Optimizer steps of the run at most; None where only the data can tell."""
    trainer, steps = content["trainer"], steps_per_epoch(content)
    limits = [] if trainer["max_steps"] is None else [int(trainer["max_steps"])]
    if trainer["max_epochs"] is not None and steps is not None:
        limits.append(int(trainer["max_epochs"] * steps))
    return min(limits, default=None)


def most_evaluations(content: Content) -> int | None:
    """Evaluations of the run at most: what patience, pruning and reductions of the learning rate count; None as above."""
    every, steps = content["trainer"]["evaluate_every"], most_steps(content)
    if every is None:
        epochs = content["trainer"]["max_epochs"]
        return None if epochs is None else int(epochs)
    return None if steps is None else ceil(steps / every)


# -- mistakes ----------------------------------------------------------------------------------------------------------------


def _check_data(content: Content) -> None:
    data = content["data"]
    if data.get("label_noise") is None:
        for key, default in (("label_noise_kind", "symmetric"), ("label_noise_val", False)):
            if data.get(key, default) != default:
                raise UserError(f"data.{key}={shown(data[key])} changes nothing without noise: set data.label_noise too")
    if class_name(content, "data") == "ImageFolder" and data["root"] is None:
        raise UserError("data=image_folder reads the images below data.root: set data.root=<folder>")
    sizes = sizes_of(data)
    if sizes is None:
        return
    name = class_name(content, "data")
    if data["num_classes"] is not None and data["num_classes"] != sizes.num_classes:
        raise UserError(f"data.num_classes={data['num_classes']}, but {name} has {sizes.num_classes} classes: leave it out")
    if sizes.val is not None and data["val_samples"] is not None:
        raise UserError(
            f"data.val_samples={data['val_samples']} changes nothing: {name} has a validation split of its own; leave it out"
        )
    if data["shape"] is not None and prod(data["shape"]) != prod(sizes.shape):
        raise UserError(
            f"data.shape={list(data['shape'])} does not hold the {prod(sizes.shape)} numbers of an image {sizes.shape}"
        )
    if content["cv"] is not None:
        check_folds(content["cv"], sizes.smallest_class)
    available = _available(content, sizes)
    if data["train_samples"] is not None:
        check_train_samples(data["train_samples"], train=available, num_classes=sizes.num_classes)


def _check_fold(content: Content) -> None:
    fold, cv = content["fold"], content["cv"]
    if fold is not None and (cv is None or fold >= cv):
        raise UserError(f"fold={fold} is one of cv folds, but cv={shown(cv)}: set cv above {fold}")


def _check_full_batch(content: Content) -> None:
    batch_size, parts = content["data"]["batch_size"], content["trainer"]["accumulate_grad_batches"]
    names = {"LBFGS": "lbfgs", "GradientDescent": "gd", "Rprop": "rprop"}
    name = names.get(class_name(content, "optimizer"))
    if name and batch_size != "full":
        instead = "sgd" if name == "gd" else "adam"
        raise UserError(
            f"optimizer={name} needs the whole training split in every step, but data.batch_size={batch_size}: "
            f"set data.batch_size=full, or optimizer={instead}"
        )
    if batch_size == "full" and parts > 1:
        raise UserError(
            f"trainer.accumulate_grad_batches={parts} has no batches to accumulate: data.batch_size=full is one; leave it out"
        )


def _check_length(content: Content) -> None:
    trainer, warmup = content["trainer"], content["schedule"].get("warmup_steps", 0)
    if trainer["max_epochs"] is None and trainer["max_steps"] is None:
        raise UserError("trainer.max_epochs and trainer.max_steps are both null: set one of them")
    steps = most_steps(content)
    if steps is not None:
        check_warmup(warmup, steps // _trainings(content))


def check_warmup(warmup_steps: int, total_steps: int) -> None:
    """Raises UserError where the run ends before the learning rate has risen to what was set."""
    if warmup_steps and warmup_steps >= total_steps:
        raise UserError(
            f"schedule.warmup_steps={warmup_steps} does not end before the run, which has {total_steps} steps: set it lower, "
            f"or trainer.max_epochs higher"
        )


def _trainings(content: Content) -> int:
    """The trainings of equal length that the run consists of."""
    return 1 + int(content["reg"].get("magnitude_pruning", {}).get("rounds", 0))


def _check_measure(content: Content) -> None:
    measures = content["measure"]
    for name in measures:
        if name not in MEASURES:
            nearest = difflib.get_close_matches(name, MEASURES, n=1, cutoff=0.5)
            hint = f"did you mean measure=[{nearest[0]}]? " if nearest else ""
            raise UserError(f"measure=[{name}] is not known\n{hint}measure takes any of: {', '.join(MEASURES)}")
        if list(measures).count(name) > 1:
            raise UserError(f"measure=[{','.join(measures)}] names {name} twice: leave one out")


def _check_target(content: Content) -> None:
    if not content["stop_at_target"]:
        return
    if content["target"] is None:
        raise UserError("stop_at_target=true has no target to stop at: set target='val/acc>=0.95' too")
    if "magnitude_pruning" in content["reg"]:
        raise UserError("stop_at_target=true may end the run before all is removed by reg=magnitude_pruning: leave it out")


def _check_optimizer(content: Content) -> None:
    trainer, name, model = content["trainer"], class_name(content, "optimizer"), class_name(content, "model")
    if name == "External":
        check_name(content["optimizer"].get("name"))
    _check_parts(content)
    _check_schedule(content)
    _check_average(content)
    if name == "RMSprop" and content["optimizer"].get("alpha", 0) >= 1:
        raise UserError(f"optimizer.alpha={shown(content['optimizer']['alpha'])} is not possible: RMSprop takes one below 1")
    if name == "Muon" and (model == "Linear" or (model == "MLP" and not content["model"]["hidden"])):
        raise UserError("optimizer=muon works on hidden layers and this model has none: set optimizer=adam, or model=mlp")
    if trainer["gradient_clip_val"] is None and trainer["gradient_clip_algorithm"] != "norm":
        raise UserError(
            f"trainer.gradient_clip_algorithm={trainer['gradient_clip_algorithm']} clips nothing: set "
            f"trainer.gradient_clip_val too"
        )
    if name == "LBFGS" and trainer["gradient_clip_val"] is not None:
        raise UserError(
            "optimizer=lbfgs compares gradients along a line, which trainer.gradient_clip_val would make those of another "
            "function: leave it out"
        )


def _check_parts(content: Content) -> None:
    """Settings of several numbers: as many as the optimizer has."""
    rule = RULES.get(str(content["optimizer"].get("_target_")))
    for setting, names in PARTS.items():
        value = content["optimizer"].get(setting)
        if rule is None or value is None:
            continue
        expected = sum(name in rule.defaults for name in names)
        if (len(value) if isinstance(value, Sequence) else 0) != expected:
            raise UserError(
                f"optimizer.{setting}={shown(value)} is not possible: {class_name(content, 'optimizer')} takes "
                + (f"a list of {expected} numbers" if expected else "one number")
            )


#: Optimizers that choose their learning rates themselves, and what a schedule would do to them.
WITHOUT_SCHEDULE = {
    "Rprop": "takes optimizer.lr for its first step and finds the others itself",
    "ScheduleFreeSGD": "averages its weights in place of a schedule",
    "ScheduleFreeAdamW": "averages its weights in place of a schedule",
}


def _check_schedule(content: Content) -> None:
    name, schedule = class_name(content, "optimizer"), class_name(content, "schedule")
    warmup = content["schedule"].get("warmup_steps", 0)
    if name in WITHOUT_SCHEDULE and schedule != "Constant":
        raise UserError(f"{name} {WITHOUT_SCHEDULE[name]}, so that {schedule} has nothing to say: set schedule=constant")
    if name == "Rprop" and warmup:
        raise UserError(f"schedule.warmup_steps={warmup} changes nothing: Rprop {WITHOUT_SCHEDULE[name]}; leave it out")


def _check_average(content: Content) -> None:
    """Of optimizers that are judged by an average: what would act on the weights that train, and is not in the average."""
    name = class_name(content, "optimizer")
    rule = RULES.get(str(content["optimizer"].get("_target_")))
    if rule is None or rule.average is None:
        return
    for key, settings in content["reg"].items():
        is_step = key in ("weight_decay", "max_norm", "group_lasso") or settings.get("method") == "proximal"
        if is_step and name.startswith("ScheduleFree"):
            instead = {"weight_decay": "optimizer.weight_decay", "l1": "reg.l1.method=subgradient"}.get(key, "reg=l2")
            raise UserError(
                f"reg={key} changes weights after a step, which {name} does not carry over into the average that it is judged "
                f"by: set {instead}, or optimizer=adamw"
            )


def _check_model(content: Content) -> None:
    model, shape = class_name(content, "model"), content["data"].get("shape")
    settings = content["model"]
    if settings.get("batch_norm") and settings.get("layer_norm"):
        raise UserError("model.batch_norm=true and model.layer_norm=true are two norms of one layer: set one of them to false")
    if model == "ResNet":
        check_depth(settings["depth"])
    if model == "MLP":
        _check_mlp(content)
    if shape is None:
        return
    if model in ("CNN", "LeNet", "ResNet"):
        image_shape(shape, model.lower())
    if model == "CNN":
        check_halvings(shape, settings["channels"])
    if model == "LeNet":
        check_lenet(shape)


def _check_mlp(content: Content) -> None:
    settings, optimizer = content["model"], str(content["optimizer"].get("_target_"))
    norms = [f"model.{name}=true" for name in ("batch_norm", "layer_norm") if settings.get(name)]
    if norms and not settings["hidden"]:
        raise UserError(f"{norms[0]} acts after hidden layers, but model.hidden=[]: leave it out, or add layers")
    if settings.get("parametrization") != "mup":
        if settings.get("base_width") is not None:
            raise UserError(f"model.base_width={settings['base_width']} changes nothing: set model.parametrization=mup too")
        return
    if not settings["hidden"]:
        raise UserError("model.parametrization=mup changes nothing: model.hidden=[] has no width; leave it out, or add layers")
    if norms:
        raise UserError(f"model.parametrization=mup has no factors for the scales of a norm: leave out {norms[0]}")
    if optimizer not in mup.GRADIENT | mup.ADAPTIVE:
        name = class_name(content, "optimizer")
        reason = ", whose steps are in proportion to the weights, and so the same with any" if optimizer in mup.RELATIVE else ""
        raise UserError(
            f"model.parametrization=mup has no factors for {name}{reason}: set optimizer=momentum, adam or one of their kind"
        )


#: Augmentations that say nothing of a single row of pixels, and those that say nothing of pixels without neighbours.
OF_SEVERAL_ROWS = {
    "Shift": "shift",
    "FlipCrop": "flip_crop",
    "CutMix": "cutmix",
    "RandomErasing": "random_erasing",
    "TrivialAugment": "trivial_augment",
}
OF_NEIGHBOURS = ("Shift", "FlipCrop", "TrivialAugment")


def _check_augment(content: Content) -> None:
    shape, cls, settings = content["data"].get("shape"), class_name(content, "augment"), content["augment"]
    if shape is not None and len(shape) != 3 and "_target_" in settings:
        raise UserError(f"augmentation acts on images, but data.shape={list(shape)} is flat: set augment=none")
    if cls in OF_SEVERAL_ROWS and shape is not None and min(shape[1:]) == 1:
        raise UserError(
            f"augment={OF_SEVERAL_ROWS[cls]} acts in both directions of an image, but those of {list(shape)} have one row: set "
            f"augment=none, cutout or mixup"
        )
    if cls in OF_NEIGHBOURS and content["data"].get("shuffle_pixels"):
        raise UserError(
            f"augment={OF_SEVERAL_ROWS[cls]} moves pixels to their neighbours, which data.shuffle_pixels=true leaves none of: "
            f"set augment=none, cutout or mixup"
        )
    if cls == "RandomErasing" and settings["min_area"] > settings["max_area"]:
        raise UserError(
            f"augment.min_area={settings['min_area']} is above augment.max_area={settings['max_area']}: set one between 0 and "
            f"the other"
        )


def _has_one_layer(content: Content) -> bool:
    model = class_name(content, "model")
    return model == "Linear" or (model == "MLP" and not content["model"]["hidden"])


def _check_regularizers(content: Content) -> None:
    if "kl_sparsity" in content["reg"] and content["model"].get("activation") != "sigmoid":
        raise UserError(
            "reg=kl_sparsity compares mean activations with a probability and needs activations between 0 and 1: set "
            "model.activation=sigmoid (with model=mlp, cnn or lenet)"
        )
    for name in ("confidence_penalty", "r_drop"):
        if content["loss"] == "mse" and name in content["reg"]:
            raise UserError(
                f"reg={name} acts on probabilities, which the outputs under loss=mse are not: set loss=cross_entropy"
            )
    if "stochastic_depth" in content["reg"] and class_name(content, "model") in WITHOUT_BRANCHES:
        raise UserError("reg=stochastic_depth leaves out residual blocks, of which this model has none: set model=resnet")
    _check_r_drop(content)
    _check_mixing(content)
    for name in ("dropout", "gaussian_dropout"):
        settings = content["reg"].get(name, {})
        if settings.get("rate") and not settings.get("input_rate") and _has_one_layer(content):
            raise UserError(
                f"reg={name} changes nothing: reg.{name}.rate acts on the inputs of layers after the first, and this model has "
                f"none; set reg.{name}.input_rate, or model=mlp"
            )


#: What optimizer=lbfgs compares from one evaluation, or one step, to the next, by what would come in between.
DISTURBS_LBFGS = {
    **dict.fromkeys((*PERTURBING, *CHANGING_GRADIENTS), "values and gradients of one function"),
    "ockham.reg.Lookahead": "weights and gradients from step to step",
}


def _check_around_the_step(content: Content) -> None:
    """Regularizers that take the gradient elsewhere, change it, or average what the steps come to."""
    targets = {str(settings.get("_target_")): key for key, settings in content["reg"].items()}
    rule = RULES.get(str(content["optimizer"].get("_target_")))
    averages = [f"reg={targets[target]}" for target in AVERAGING if target in targets]
    if rule is not None and rule.average is not None:
        averages.append(f"optimizer {class_name(content, 'optimizer')}")
    if len(averages) > 1:
        raise UserError(f"{' and '.join(averages)} each judge the run by an average of its weights: leave all but one out")
    perturbing = [f"reg={targets[target]}" for target in PERTURBING if target in targets]
    if len(perturbing) > 1:
        raise UserError(f"{' and '.join(perturbing)} each take the gradient in a place of their own: leave one out")
    for target, compared in DISTURBS_LBFGS.items():
        if class_name(content, "optimizer") == "LBFGS" and target in targets:
            raise UserError(
                f"optimizer=lbfgs compares {compared}, which reg={targets[target]} changes in between: leave it out, or set "
                f"optimizer=gd"
            )
    steps, max_epochs = most_steps(content), content["trainer"]["max_epochs"]
    if "ockham.reg.Lookahead" in targets and steps is not None:
        check_lookahead(content["reg"][targets["ockham.reg.Lookahead"]]["steps"], steps)
    if "ockham.reg.SWA" in targets and max_epochs is not None:
        check_swa(max_epochs)


#: Regularizers of Ockham that disturb each sample of a batch by itself.
NOISE_BY_SAMPLE = ("Dropout", "GaussianDropout", "InputNoise")

#: Models of Ockham without residual blocks.
WITHOUT_BRANCHES = ("Linear", "MLP", "CNN", "LeNet")


def _check_r_drop(content: Content) -> None:
    """Of two passes of a batch side by side, which must differ and must be of the same samples."""
    if "r_drop" not in content["reg"]:
        return
    targets = [str(settings.get("_target_")) for settings in content["reg"].values()]
    may_disturb_samples = any(not target.startswith("ockham.reg.") for target in targets)
    if not may_disturb_samples and not any(target.rpartition(".")[2] in NOISE_BY_SAMPLE for target in targets):
        others = [name for name in ("dropconnect", "stochastic_depth") if name in content["reg"]]
        reason = f"; reg={others[0]} draws once for both" if others else ""
        raise UserError(
            f"reg=r_drop compares two passes that differ in the noise on each sample, and there is none{reason}: set "
            f"'reg=[{','.join(sorted(['dropout', *content['reg']]))}]', or add gaussian_dropout or input_noise"
        )
    if "manifold_mixup" in content["reg"]:
        raise UserError(
            "reg=r_drop compares two passes of one sample, and reg=manifold_mixup mixes each with another one: leave one of "
            "them out, or set augment=mixup, which mixes before the passes"
        )


def _check_mixing(content: Content) -> None:
    name = {"Mixup": "mixup", "CutMix": "cutmix"}.get(class_name(content, "augment"))
    if "jacobian" in content["reg"] and "manifold_mixup" in content["reg"]:
        raise UserError(
            "reg=jacobian differentiates the logits of each sample, and reg=manifold_mixup mixes them with those of another: "
            "leave one of them out, or set augment=mixup, which mixes before"
        )
    if name and "manifold_mixup" in content["reg"]:
        raise UserError(
            f"augment={name} and reg=manifold_mixup both mix pairs of samples and their targets: set augment=none, or leave "
            f"reg=manifold_mixup out"
        )


#: What another regularizer does that magnitude pruning has no sense with.
AGAINST_PRUNING = {
    "spectral_norm": "makes other weights of those whose magnitudes are compared",
    "early_stopping": "may end the run before all is removed",
    "ema": "averages over weights that are set back in between",
    "swa": "averages over weights that are set back in between",
    "lookahead": "returns to weights that are set back in between",
    "gradient_centralization": "moves weights, without a gradient, that are removed",
    "gradient_noise": "moves weights, without a gradient, that are removed",
}


def _check_magnitude_pruning(content: Content) -> None:
    if "magnitude_pruning" not in content["reg"]:
        return
    settings, trainer = content["reg"]["magnitude_pruning"], content["trainer"]
    optimizer, rule = class_name(content, "optimizer"), content.get("prune", {}).get("rule", "none")
    for name in [name for name in AGAINST_PRUNING if name in content["reg"]]:
        raise UserError(f"reg={name} {AGAINST_PRUNING[name]} by reg=magnitude_pruning: leave out one of the two")
    if rule != "none":
        raise UserError(
            f"reg=magnitude_pruning removes weights in rounds, and prune={rule} would compare runs by what they were before: "
            f"set prune=none"
        )
    if optimizer in ("Muon", "External"):
        raise UserError(
            f"reg=magnitude_pruning removes weights, and {optimizer} may move those without a gradient too: set "
            f"optimizer=adam or momentum"
        )
    if content["model"].get("parametrization") == "mup" and settings.get("scope") == "global":
        raise UserError(
            "reg=magnitude_pruning compares weights of all layers, and under model.parametrization=mup they are multiplied by "
            "factors of the layer: set reg.magnitude_pruning.scope=layer"
        )
    if trainer["max_epochs"] is None or trainer["max_steps"] is not None:
        raise UserError(
            "reg=magnitude_pruning divides trainer.max_epochs into trainings of equal length: set it, and "
            "trainer.max_steps=null"
        )
    steps = most_steps(content)
    check_pruning(content, epochs=trainer["max_epochs"], steps=None if steps is None else steps // _trainings(content))


def check_pruning(content: Content, *, epochs: int, steps: int | None) -> None:
    """Raises UserError where the rounds of reg=magnitude_pruning do not fit the epochs of the run, or the steps of its first
    training do not reach the weights to rewind to.
    """
    settings, trainings = content["reg"].get("magnitude_pruning"), _trainings(content)
    if settings is None:
        return
    if epochs % trainings:
        raise UserError(
            f"reg.magnitude_pruning.rounds={settings['rounds']} makes {trainings} trainings of equal length, which "
            f"trainer.max_epochs={epochs} cannot be divided into: set trainer.max_epochs to a multiple of {trainings}"
        )
    evaluate_every = content["trainer"]["evaluate_every"]
    if steps is not None and evaluate_every is not None and steps % evaluate_every:
        raise UserError(
            f"trainer.evaluate_every={evaluate_every} does not divide the {steps} steps of each training under "
            f"reg=magnitude_pruning, which ends with an evaluation: set a divisor of {steps}"
        )
    if steps is not None and settings["rewind_step"] >= steps:
        raise UserError(
            f"reg.magnitude_pruning.rewind_step={settings['rewind_step']} is not reached in the first training, which has "
            f"{steps} steps: set it lower, or trainer.max_epochs higher"
        )


def _check_prune(content: Content) -> None:
    prune, most = content.get("prune", {}), most_evaluations(content)
    if most is not None and prune.get("min_epochs", 0) >= most:
        unit = "epoch" if content["trainer"]["evaluate_every"] is None else "evaluation"
        raise UserError(
            f"prune.min_epochs={prune['min_epochs']} ends no run before its last {unit}, {most}: set prune.min_epochs "
            f"lower, or prune=none"
        )


def check_sweep_consistency(content: Content) -> None:
    """Raises UserError for settings of a sweep as a whole that contradict each other."""
    _check_comparison(content)
    executor = content.get("executor", {})
    if content.get("max_failures") is not None and content["on_failure"] == "stop":
        raise UserError(f"max_failures={content['max_failures']} changes nothing: on_failure=stop ends at the first failure")
    if executor.get("name") == "inline":
        for key, default in UNUSED_INLINE.items():
            if executor.get(key, default) != default:
                raise UserError(
                    f"executor.{key}={shown(executor[key])} changes nothing: executor=inline runs one job after the other in "
                    f"this process; set executor=processes"
                )


def _check_comparison(content: Content) -> None:
    is_auto = content.get("confirm") == "auto"
    if content.get("confirm") is not None and content.get("compare") is None:
        raise UserError("confirm repeats the best setting of each arm of a comparison: add compare=<what is compared>")
    if content.get("budget") == "flops" and content.get("compare") is None:
        raise UserError("budget=flops shares operations out among the arms of a comparison: add compare=<what is compared>")
    if content.get("budget") == "flops" and content["search"]["sampler"] == "grid":
        raise UserError("budget=flops gives dearer arms fewer trials, and a grid has all of them: add search=random")
    if is_auto and content.get("resolve") is None:
        raise UserError("confirm=auto adds seeds until a difference is known: say how well with resolve=0.002")
    for key in ("resolve", "max_seeds"):
        if content.get(key) is not None and not is_auto:
            raise UserError(f"{key}={shown(content[key])} changes nothing where the seeds are counted: set confirm=auto")


# -- warnings ----------------------------------------------------------------------------------------------------------------


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
        reason = f"steps of {class_name(content, 'optimizer')} {rule.response}" if isinstance(rule.response, str) else ""
    except ValueError as error:
        reason = str(error)
    for name in ("l1", "elastic_net", "group_lasso"):
        if reason and name in content["reg"] and content["reg"][name].get("method") != "subgradient":
            instead = "" if name == "group_lasso" else f", or reg.{name}.method=subgradient"
            yield (
                f"{reason}: reg={name} shrinks weights by lr times its strength after each step, and what is minimised is not "
                f"the penalised loss. Set optimizer=adam{instead} where it has to be"
            )


def _average_warnings(content: Content) -> Iterator[str]:
    averages = [key for key, settings in content["reg"].items() if settings.get("_target_") in AVERAGING]
    for name in ("l1", "elastic_net", "group_lasso"):
        if averages and name in content["reg"] and content["reg"][name].get("method") != "subgradient":
            yield (
                f"reg={name} sets weights to exactly 0, and reg={averages[0]} judges the run by an average, where only those "
                f"are 0 that always were: leave one out where zeros are wanted"
            )


def _licence_warnings(content: Content) -> Iterator[str]:
    name = content["optimizer"].get("name")
    if class_name(content, "optimizer") == "External" and key_of(name) in NON_COMMERCIAL:
        yield f"the licence of optimizer.name={name}, CC BY-NC-SA 4.0, does not allow commercial use"


def _noise_warnings(content: Content) -> Iterator[str]:
    for name in ("dropout", "gaussian_dropout"):
        if content["reg"].get(name, {}).get("rate") and _has_one_layer(content):
            yield f"reg.{name}.rate acts on nothing: this model has a single layer, whose input has reg.{name}.input_rate"


def _patience_warnings(content: Content) -> Iterator[str]:
    """The first evaluation always is an improvement, and what follows the last one changes nothing."""
    most, schedule = most_evaluations(content), content["schedule"]
    unit = "epochs" if content["trainer"]["evaluate_every"] is None else "evaluations"
    patience = content["reg"].get("early_stopping", {}).get("patience", 0)
    if most is not None and patience and patience + 1 >= most:
        yield f"reg.early_stopping.patience={patience} cannot end a run of {most} {unit} early"
    if most is not None and class_name(content, "schedule") == "Plateau" and schedule["patience"] + 2 >= most:
        yield f"schedule.patience={schedule['patience']} cannot lower the learning rate in a run of {most} {unit}"


def _size_warnings(content: Content) -> Iterator[str]:
    images, batch_size = training_images(content), content["data"]["batch_size"]
    if images is not None and batch_size != "full" and batch_size > images:
        yield f"data.batch_size={batch_size} is beyond the {images} training images: every step takes all of them"
    max_epochs, max_steps = content["trainer"]["max_epochs"], content["trainer"]["max_steps"]
    steps = steps_per_epoch(content)
    if None not in (max_epochs, max_steps, steps) and max_steps > max_epochs * steps:
        yield (
            f"trainer.max_steps={max_steps} is beyond the {max_epochs * steps} steps of trainer.max_epochs={max_epochs}, which "
            f"end the run: set trainer.max_epochs=null to train that long"
        )
