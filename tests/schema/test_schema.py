"""Settings that cannot be right, or that would be taken and change nothing. Compositions alone: nothing is built or trained."""

import pytest
import torch

from conftest import compose
from ockham import build, schema
from ockham.core.datasets import sizes_of
from ockham.errors import UserError

#: Overrides -> what the mistake must say: the setting, then what to do.
CONTRADICTIONS = {
    "optimizer=gd data.batch_size=32": ["optimizer=gd", "data.batch_size=32", "set data.batch_size=full, or optimizer=sgd"],
    "optimizer=lbfgs data.batch_size=64": ["optimizer=lbfgs", "set data.batch_size=full, or optimizer=adam"],
    "optimizer=gd trainer.accumulate_grad_batches=2": [
        "trainer.accumulate_grad_batches=2",
        "data.batch_size=full",
        "leave it out",
    ],
    "optimizer=lbfgs trainer.accumulate_grad_batches=2": ["trainer.accumulate_grad_batches=2"],
    "data.batch_size=full trainer.accumulate_grad_batches=2": ["trainer.accumulate_grad_batches=2"],
    "optimizer=lbfgs trainer.gradient_clip_val=1": ["trainer.gradient_clip_val", "leave it out"],
    "trainer.gradient_clip_algorithm=value": ["trainer.gradient_clip_algorithm=value", "set trainer.gradient_clip_val too"],
    "data.val_samples=400": ["data.val_samples=400 changes nothing", "leave it out"],
    "data.num_classes=3": ["data.num_classes=3", "10 classes"],
    "data=cifar100 data.num_classes=10": ["data.num_classes=10", "100 classes"],
    "data.shape=[700]": ["data.shape=[700]", "784 numbers"],
    "data.train_samples=5": ["data.train_samples=5", "between 10 (one image per class) and 3500"],
    "data.train_samples=3501": ["data.train_samples=3501", "and 3500"],
    "data=mnist data.val_samples=59995": ["data.val_samples=59995", "set it between 10 and 59990"],
    "cv=5 fold=0 data.train_samples=3201": ["data.train_samples=3201", "and 3200"],
    "cv=401": ["cv=401", "smallest class has 400"],
    "data=cifar100 cv=501": ["cv=501", "smallest class has 500"],
    "data=image_folder": ["data=image_folder", "set data.root"],
    "data.label_noise_kind=pair": ["data.label_noise_kind=pair changes nothing", "set data.label_noise"],
    "data.label_noise_val=true": ["data.label_noise_val=true changes nothing"],
    "data.label_noise=1.1": ["data.label_noise=1.1", "at most 1"],
    "data=mnist1d data.num_samples=30 data.train_split=0.9": ["data.num_samples=30", "set data.num_samples higher"],
    "data=mnist1d data.train_samples=3501": ["data.train_samples=3501", "and 3500"],
    "data=mnist1d augment=shift": ["augment=shift", "one row", "cutout or mixup"],
    "data=mnist1d augment=cutmix": ["augment=cutmix", "one row", "cutout or mixup"],
    "data=digits data.shuffle_pixels=true augment=trivial_augment": ["augment=trivial_augment", "data.shuffle_pixels=true"],
    "augment=random_erasing augment.min_area=0.5": ["augment.min_area=0.5 is above augment.max_area=0.4"],
    "augment=random_erasing augment.probability=0": ["augment.probability=0", "above 0"],
    "data=mnist1d model=cnn": ["model=cnn", "1 x 40", "set model=mlp"],
    "data=mnist1d model=lenet": ["model=lenet", "1 x 40", "set model=mlp"],
    "data.shuffle_pixels=true augment=flip_crop": ["augment=flip_crop", "data.shuffle_pixels=true", "set augment=none"],
    "loss=mse reg=confidence_penalty": ["reg=confidence_penalty", "loss=mse", "set loss=cross_entropy"],
    "loss=mse reg=[dropout,r_drop]": ["reg=r_drop", "loss=mse", "set loss=cross_entropy"],
    "reg=r_drop": ["reg=r_drop compares two passes", "there is none", "'reg=[dropout,r_drop]'"],
    "reg=[dropconnect,r_drop]": ["reg=dropconnect draws once for both", "'reg=[dropconnect,dropout,r_drop]'"],
    "reg=[dropout,manifold_mixup,r_drop]": ["reg=r_drop", "reg=manifold_mixup", "leave one of them out, or set augment=mixup"],
    "reg=manifold_mixup augment=mixup": ["augment=mixup and reg=manifold_mixup", "set augment=none"],
    "reg=manifold_mixup augment=cutmix": ["augment=cutmix and reg=manifold_mixup", "set augment=none"],
    "reg=manifold_mixup reg.manifold_mixup.alpha=0": ["reg.manifold_mixup.alpha=0", "above 0"],
    "reg=stochastic_depth": ["reg=stochastic_depth", "set model=resnet"],
    "measure=[sharpnes]": ["measure=[sharpnes] is not known", "did you mean measure=[sharpness]?", "calibration"],
    "measure=[calibration,calibration]": ["names calibration twice"],
    "measure=sharpness": ["measure=sharpness is not possible", "a list"],
    "loss=hinge": ["loss=hinge", "one of cross_entropy, mse"],
    "schedule.warmup_steps=2200": ["schedule.warmup_steps=2200", "2200 steps"],
    "data=image_folder data.root=x trainer.max_steps=50 schedule.warmup_steps=50": ["schedule.warmup_steps=50", "50 steps"],
    "schedule=step schedule.every=1": ["schedule.every=1 is not possible", "below 1"],
    "model=linear reg=dropout": ["reg.dropout.rate", "set reg.dropout.input_rate"],
    "model.hidden=[] reg=gaussian_dropout": ["reg.gaussian_dropout.rate", "set reg.gaussian_dropout.input_rate"],
    "model.hidden=[] model.batch_norm=true": ["model.batch_norm=true", "model.hidden=[]"],
    "model.hidden=[] model.layer_norm=true": ["model.layer_norm=true", "model.hidden=[]"],
    "model.batch_norm=true model.layer_norm=true": ["model.batch_norm=true and model.layer_norm=true", "set one of them"],
    "model=resnet model.layer_norm=true": ["model.batch_norm=true and model.layer_norm=true", "set one of them to false"],
    "model.parametrization=mup model.hidden=[]": ["model.parametrization=mup changes nothing", "model.hidden=[]"],
    "model.parametrization=mup model.batch_norm=true": ["model.parametrization=mup", "leave out model.batch_norm=true"],
    "model.parametrization=mup optimizer=muon": ["model.parametrization=mup", "Muon", "set optimizer=momentum, adam"],
    "model.parametrization=mup optimizer=lamb": ["mup has no factors for Lamb, whose steps are in proportion to the weights"],
    "model.base_width=128": ["model.base_width=128 changes nothing", "set model.parametrization=mup"],
    "model=cnn model.init=xavier": ["model.init=xavier", "one of default, he, glorot, orthogonal"],
    "model=linear optimizer=muon": ["optimizer=muon", "set optimizer=adam"],
    "model=resnet model.depth=9": ["model.depth=9", "6 n + 2"],
    "model=lenet data=image_folder data.root=x data.shape=[1,10,10]": ["model=lenet", "12 x 12", "model=mlp"],
    "optimizer=rprop data.batch_size=32": ["optimizer=rprop", "set data.batch_size=full, or optimizer=adam"],
    "optimizer=rprop schedule=cosine": ["Rprop takes optimizer.lr for its first step", "set schedule=constant"],
    "optimizer=rprop schedule.warmup_steps=3": ["schedule.warmup_steps=3 changes nothing", "leave it out"],
    "optimizer=schedule_free_sgd schedule=cosine": ["ScheduleFreeSGD averages its weights", "Cosine", "set schedule=constant"],
    "optimizer=schedule_free_adamw reg=weight_decay": ["reg=weight_decay", "set optimizer.weight_decay"],
    "optimizer=schedule_free_adamw reg=l1": ["reg=l1", "reg.l1.method=subgradient"],
    "optimizer=schedule_free_sgd reg=max_norm": ["reg=max_norm", "optimizer=adamw"],
    "reg=[ema,swa]": ["reg=ema and reg=swa", "leave all but one out"],
    "reg=ema optimizer=asgd": ["reg=ema and optimizer ASGD", "leave all but one out"],
    "reg=lookahead optimizer=schedule_free_sgd": ["reg=lookahead and optimizer ScheduleFreeSGD", "leave all but one out"],
    "reg=[asam,sam]": ["reg=asam and reg=sam", "leave one out"],
    "reg=sam optimizer=lbfgs": ["optimizer=lbfgs", "reg=sam", "set optimizer=gd"],
    "reg=gradient_noise optimizer=lbfgs": ["optimizer=lbfgs", "reg=gradient_noise"],
    "reg=lookahead optimizer=lbfgs": ["optimizer=lbfgs compares weights and gradients from step to step", "reg=lookahead"],
    "reg=lookahead trainer.max_steps=4": ["reg.lookahead.steps=5", "4 steps", "set it lower"],
    "reg=swa trainer.max_epochs=1": ["reg=swa", "set trainer.max_epochs higher"],
    "reg=swa reg.swa.start=1": ["reg.swa.start=1 is not possible", "below 1"],
    "optimizer=adam optimizer.betas=[0.9,0.99,0.9]": ["optimizer.betas=[0.9, 0.99, 0.9]", "Adam takes a list of 2 numbers"],
    "optimizer=adan optimizer.betas=[0.9,0.99]": ["optimizer.betas=[0.9, 0.99]", "Adan takes a list of 3 numbers"],
    "optimizer=adam optimizer.eps=[0.1,0.1]": ["optimizer.eps=[0.1, 0.1]", "Adam takes one number"],
    "optimizer=adafactor optimizer.eps=0.1": ["optimizer.eps=0.1", "Adafactor takes a list of 2 numbers"],
    "optimizer=rmsprop optimizer.alpha=1": ["optimizer.alpha=1", "RMSprop takes one below 1"],
    "optimizer=external": ["set optimizer.name=soap"],
    "optimizer=external optimizer.name=lomo": ["optimizer.name=lomo is not possible", "takes the model apart"],
    "on_failure=stop max_failures=2": ["max_failures=2 changes nothing", "on_failure=stop"],
    "executor=inline executor.slots=4": ["executor.slots=4 changes nothing", "set executor=processes"],
    "executor=inline executor.timeout=60": ["executor.timeout=60 changes nothing"],
    "trainer.evaluate_every=0": ["trainer.evaluate_every=0 is not possible", "at least 1"],
    "prune=median prune.min_epochs=20 trainer.evaluate_every=200": ["prune.min_epochs=20", "its last evaluation, 11"],
    "reg=[jacobian,manifold_mixup]": ["reg=jacobian", "reg=manifold_mixup", "set augment=mixup"],
    "reg=[magnitude_pruning,spectral_norm]": ["reg=spectral_norm makes other weights", "leave out one of the two"],
    "reg=[magnitude_pruning,lookahead]": ["reg=lookahead returns to weights that are set back", "leave out one of the two"],
    "reg=[magnitude_pruning,ema]": ["reg=ema averages over weights that are set back"],
    "reg=[gradient_noise,magnitude_pruning]": ["reg=gradient_noise moves weights, without a gradient"],
    "reg=[magnitude_pruning,early_stopping]": ["reg=early_stopping may end the run before all is removed"],
    "reg=magnitude_pruning prune=asha": ["reg=magnitude_pruning removes weights in rounds", "prune=asha", "set prune=none"],
    "reg=magnitude_pruning optimizer=muon": ["Muon may move those without a gradient", "set optimizer=adam"],
    "reg=magnitude_pruning model.parametrization=mup": ["set reg.magnitude_pruning.scope=layer"],
    "reg=magnitude_pruning trainer.max_steps=100": ["divides trainer.max_epochs", "trainer.max_steps=null"],
    "reg=magnitude_pruning reg.magnitude_pruning.rounds=2": ["rounds=2 makes 3 trainings", "set trainer.max_epochs"],
    "reg=magnitude_pruning reg.magnitude_pruning.rewind_step=1100": ["rewind_step=1100 is not reached", "1100 steps"],
    "reg=magnitude_pruning trainer.evaluate_every=300": ["does not divide the 1100 steps", "set a divisor of 1100"],
    "reg=magnitude_pruning schedule.warmup_steps=1100": ["schedule.warmup_steps=1100", "1100 steps"],
    "reg=magnitude_pruning reg.magnitude_pruning.sparsity=1": ["reg.magnitude_pruning.sparsity=1", "below 1"],
    "prune=median prune.min_epochs=20": ["prune.min_epochs=20", "set prune.min_epochs lower"],
    "optimizer.lr={a:1}": ["optimizer.lr={'a': 1} is not possible", "a number above 0"],
    "seed={a:1}": ["seed={'a': 1} is not possible", "a whole number"],
    "~optimizer": ["optimizer=null is not possible", "an option of conf/optimizer"],
    f"objective={'x' * 5000}": ["objective=xxx", "... is not possible"],
}

#: Overrides -> the warning, for what is harmless.
WARNINGS = {
    "data.batch_size=4000": "data.batch_size=4000 is beyond the 3500 training images",
    "trainer.max_steps=5000": "trainer.max_steps=5000 is beyond the 2200 steps of trainer.max_epochs=20",
    "reg=early_stopping reg.early_stopping.patience=19": "reg.early_stopping.patience=19 cannot end a run of 20 epochs early",
    "schedule=plateau schedule.patience=18": "schedule.patience=18 cannot lower the learning rate in a run of 20 epochs",
    "reg=early_stopping reg.early_stopping.patience=10 trainer.evaluate_every=200": "cannot end a run of 11 evaluations early",
    "schedule=plateau schedule.patience=9 trainer.evaluate_every=200": "in a run of 11 evaluations",
    "model=linear reg=dropout reg.dropout.input_rate=0.2": "reg.dropout.rate acts on nothing",
    "reg=l2 optimizer=adamw": "shrink the same weights",
    "reg=[ema,l1]": "reg=ema judges the run by an average, where only those are 0 that always were",
}

#: Close to the above, and right.
POSSIBLE = [
    "schedule.warmup_steps=2199",
    "prune=median prune.min_epochs=40 trainer.evaluate_every=50",
    "optimizer=gd trainer.evaluate_every=10",
    "cv=400 fold=0",
    "data.train_samples=3500",
    "data.train_samples=10 data.batch_size=10",
    "data.num_classes=10",
    "data.shape=[784]",
    "data=mnist1d augment=mixup model=resnet",
    "data=digits data.shuffle_pixels=true augment=cutout",
    "data.shuffle_pixels=true augment=random_erasing",
    "reg=[input_noise,r_drop] augment=mixup",
    "model=resnet reg=[manifold_mixup,stochastic_depth]",
    "data.label_noise=0",
    "model.parametrization=mup model.base_width=128 optimizer=nesterov model.init=he",
    "model=resnet model.batch_norm=false model.layer_norm=true optimizer=asgd",
    "model.parametrization=mup optimizer=lion",
    "reg=[magnitude_pruning,dropconnect,l1] reg.magnitude_pruning.rewind_step=1099",
    "model.parametrization=mup optimizer=schedule_free_sgd schedule=constant",
    "trainer.gradient_clip_val=1 trainer.gradient_clip_algorithm=value",
    "model=linear reg=dropout reg.dropout.rate=0 reg.dropout.input_rate=0.2",
    "reg=early_stopping reg.early_stopping.patience=18",
    "schedule=plateau schedule.patience=17",
    "prune=median prune.min_epochs=19",
    "executor=inline on_failure=stop",
    "optimizer._target_=mine.Own +optimizer.inner.scale=2",
    "trainer=smoke optimizer=gd",
    "reg=ema optimizer=lbfgs",
    "reg=[gradient_centralization,gradient_noise,lookahead,sam] trainer.gradient_clip_val=1",
    "optimizer=schedule_free_sgd model.batch_norm=true",
    "reg=swa model=resnet",
]


def check(words: str) -> list[str]:
    return schema.check(schema.container(compose(*words.split(" "))))


@pytest.mark.parametrize("words", CONTRADICTIONS)
def test_what_contradicts_or_changes_nothing_is_a_mistake(words: str) -> None:
    with pytest.raises(UserError) as caught:
        check(words)
    assert len(str(caught.value)) < 500
    for part in CONTRADICTIONS[words]:
        assert part in str(caught.value)


@pytest.mark.parametrize("words", WARNINGS)
def test_what_is_harmless_is_warned_of(words: str) -> None:
    (warning,) = check(words)
    assert WARNINGS[words] in warning


@pytest.mark.parametrize("words", POSSIBLE)
def test_what_is_possible_passes_without_a_word(words: str) -> None:
    assert check(words) == []


@pytest.mark.parametrize("name", ["mnist5k", "digits", "mnist1d"])
def test_the_sizes_that_are_known_before_reading_are_those_of_the_data(name: str) -> None:
    config = compose(f"data={name}")
    sizes, source = sizes_of(schema.container(config.data)), build.source_of(config)
    assert sizes is not None
    labels = torch.cat([source.train.labels, *([] if source.val is None else [source.val.labels])])
    assert (len(source.train), len(source.test), len(source.classes)) == (sizes.train, sizes.test, sizes.num_classes)
    assert (None if source.val is None else len(source.val)) == sizes.val
    assert source.train.image_shape == sizes.shape
    smallest = int(torch.bincount(labels).min())
    assert smallest <= sizes.smallest_class if name == "mnist1d" else smallest == sizes.smallest_class
