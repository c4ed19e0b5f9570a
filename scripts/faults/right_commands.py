"""Pairs of commands that differ in one setting, whose results must differ: drawn from conf/, with what each needs to act."""

from typing import Any, NamedTuple

from faults.grammar import OF_SWEEPS, Setting, options, settings

TINY = {
    "data": "digits",
    "data.train_samples": "200",
    "data.batch_size": "32",
    "model.hidden": "[8]",
    "trainer.max_epochs": "4",
    "logger": "csv",
}

#: Settings that change where or how fast something is computed, what is printed or how it is called, and no number.
NO_RESULT = {
    "resume": "which run goes on",
    "trust": "which classes may be named",
    "note": "a remark",
    "sweep": "a name",
    "dry_run": "nothing runs",
    "fuse": "equal results by promise",
    "report": "a page",
    "retries": "of jobs that fail",
    "on_failure": "of jobs that fail",
    "max_failures": "of jobs that fail",
    "data.root": "a place",
    "data.num_classes": "what the data must have",
    "data.shape": "which models may be chosen: an mlp takes the same numbers in any shape",
    "logger.tensorboard": "what is written beside the results",
    "trainer.accelerator": "where",
    "trainer.devices": "where",
    "trainer.precision": "bf16-mixed where the processor has it; 64-true is another test",
    "executor": "where and how fast",
}

#: What an option needs to be chosen, beside TINY; null takes a setting of TINY out.
OF_OPTION: dict[str, dict[str, str | None]] = {
    "data=mnist1d": {"data.batch_size": None},
    "model=linear": {"model.hidden": None},
    "model=cnn": {"model.hidden": None, "model.channels": "[4,8]", "model.dense": "16"},
    "model=lenet": {"model.hidden": None, "data": "mnist5k"},
    "model=resnet": {"model.hidden": None, "model.depth": "8", "model.width": "4"},
    "optimizer=gd": {"data.batch_size": None},
    "optimizer=lbfgs": {"data.batch_size": None},
    "optimizer=rprop": {"data.batch_size": None},
    "optimizer=asgd": {"optimizer.t0": "5"},
    "optimizer=external": {"optimizer.name": "soap"},
    "reg=kl_sparsity": {"model.activation": "sigmoid"},
    "reg=stochastic_depth": {"model": "resnet", "model.hidden": None, "model.depth": "8", "model.width": "4"},
    "reg=r_drop": {"reg": "[dropout,r_drop]"},
    "reg=magnitude_pruning": {"trainer.max_epochs": "12", "reg.magnitude_pruning.rewind_step": "3"},
    "reg=early_stopping": {"trainer.max_epochs": "40", "optimizer.lr": "0.05"},
    "schedule=plateau": {"trainer.max_epochs": "40", "optimizer.lr": "0.05"},
}

#: Another value than the one that conf/ gives, where halving a number or turning a flag would be none, or change nothing here;
#: with a second one, both stand in place of it. Words after it are needed for the setting to act.
OTHER_VALUE: dict[str, tuple[str, ...]] = {
    "objective": ("val/acc", "val/loss", "optimizer.lr=0.3", "trainer.max_epochs=30"),
    "loss": ("cross_entropy", "mse"),
    "measure": ("[]", "[calibration]"),
    "target": ("null", "'val/acc>=0.05'"),
    "stop_at_target": ("false", "true", "target='val/acc>=0.05'"),
    "cv": ("3", "4", "fold=0", "data.val_samples=null"),
    "fold": ("0", "1", "cv=3"),
    "data.val_samples": ("100", "150"),
    "data.train_samples": ("150", "200"),
    "data.label_noise": ("0.1", "0.3"),
    "data.label_noise_kind": ("symmetric", "pair", "data.label_noise=0.3"),
    "data.label_noise_val": ("false", "true", "data.label_noise=0.3"),
    "data.batch_size": ("16", "full"),
    "model.hidden": ("[8]", "[8,8]"),
    "model.channels": ("[4,8]", "[8,8]"),
    "model.depth": ("8", "14"),
    "model.width": ("4", "5"),
    "model.activation": ("relu", "tanh"),
    "model.batch_norm": ("false", "true", "model.layer_norm=false"),
    "model.layer_norm": ("false", "true", "model.batch_norm=false"),
    "model.init": ("default", "he"),
    "model.parametrization": ("standard", "mup"),
    "model.base_width": ("4", "16", "model.parametrization=mup"),
    "model.pooling": ("max", "avg"),
    "optimizer.name": ("soap", "adan"),
    "optimizer.nesterov": ("false", "true", "optimizer.momentum=0.9"),
    "optimizer.line_search_fn": ("strong_wolfe", "null"),
    "optimizer.max_iter": ("2", "5"),
    "optimizer.history_size": ("1", "10"),
    "optimizer.t0": ("1", "5", "optimizer.lambd=0.1"),
    "optimizer.lambd": ("0.01", "0.5", "optimizer.t0=1"),
    "optimizer.eps": ("1e-8", "1e-2"),
    "optimizer=adafactor optimizer.eps": ("[1e-15,1e-3]", "[1e-15,1e-1]"),
    "optimizer=signsgd optimizer.momentum": ("0", "0.5"),
    "optimizer.alpha_warmup": ("0", "10"),
    "optimizer.beta3_warmup": ("0", "10"),
    "optimizer.step_sizes": ("[1e-6,50]", "[1e-6,1.1e-3]"),
    "reg.l2.scale": ("sum", "half_mean"),
    "reg.l1.method": ("proximal", "subgradient"),
    "reg.elastic_net.method": ("proximal", "subgradient"),
    "reg.magnitude_pruning.scope": ("global", "layer"),
    "reg.jacobian.projections": ("1", "all"),
    "reg.magnitude_pruning.rounds": ("1", "2"),
    "reg.magnitude_pruning.rewind_step": ("0", "3"),
    "reg.early_stopping.patience": ("1", "30"),
    "reg.early_stopping.min_delta": ("0", "0.2"),
    "reg.max_norm.limit": ("0.2", "0.5"),
    "schedule.shape": ("linear", "sqrt"),
    "schedule.milestones": ("[0.5]", "[0.25,0.75]"),
    "schedule.patience": ("0", "3"),
    "schedule.min_delta": ("0", "0.5", "schedule.patience=0"),
    "trainer.max_steps": ("5", "9"),
    "trainer.gradient_clip_val": ("0.1", "0.5"),
    "trainer.gradient_clip_algorithm": ("norm", "value", "trainer.gradient_clip_val=0.01"),
    "trainer.evaluate_every": ("3", "5"),
    "trainer.probe_samples": ("20", "50"),
    "trainer.accumulate_grad_batches": ("1", "2"),
    "search.seed": ("0", "1"),
    "search.trials": ("2", "3"),
    "prune.min_epochs": ("1", "3"),
    "prune.reduction": ("2", "8"),
    "prune.min_peers": ("1", "4"),
    "seeds": ("2", "3"),
}

#: Sweeps: each job by itself in one process, which makes nothing but the tables.
SWEEP = ("executor=inline", "fuse=off", "report=false")

#: What a sweep needs beside its own option.
OF_SWEEP_OPTION = {
    "search": ("optimizer.lr=interval(0.001,0.1)", "optimizer.eps=interval(1e-8,1e-2)"),
    "prune": ("optimizer.lr=0.03,0.00003,0.0003,0.1,0.01,0.003,0.001,0.06,0.02,0.006,0.0001,0.002",),
}


#: An option whose setting cannot be another one.
WITHOUT_CHOICE = (("data=mnist5k", "data.val_samples"), *((f"search={name}", "search.sampler") for name in options("search")))


class Pair(NamedTuple):
    """Two commands that differ in one setting."""

    common: tuple[str, ...]
    first: str
    second: str

    def words(self, side: int) -> tuple[str, ...]:
        kind = "sweep" if "-m" in self.common else "run"
        return (*self.common, (self.first, self.second)[side], f"hydra.{kind}.dir=out")


def changed(value: Any) -> Any:
    """Another number, flag or list of them in the same range; None where there is no telling."""
    if isinstance(value, bool):
        return str(not value).lower()
    if isinstance(value, list) and value:
        return f"[{','.join(str(entry if place else changed(entry)) for place, entry in enumerate(value))}]"
    if isinstance(value, (int, float)):
        return (value * 2 or 1) if isinstance(value, int) else (value / 2 or 0.3)
    return None


def pair_of(setting: Setting) -> Pair | None:
    """Two values of the setting, with what its option needs; None where it has no result, or needs data that are not here."""
    path, option = setting.path, setting.words[-1] if setting.words else ""
    group, _, name = option.partition("=")
    if (
        path in NO_RESULT
        or path.partition(".")[0] in NO_RESULT
        or (group == "data" and name not in ("digits", "mnist1d", "mnist5k"))
    ):
        return None
    if option in ("search=grid", "prune=none", "data=mnist5k") and path in (
        f"{group}.rule",
        "data.val_samples",
        "search.sampler",
    ):
        return None
    if group and (path.partition(".")[0] != group or (group == "trainer" and name != "auto")):  # which another option has too
        return None
    key = f"{option} {path}" if f"{option} {path}" in OTHER_VALUE else path
    if key in OTHER_VALUE:
        first, second, *needs = OTHER_VALUE[key]
    else:
        first, second, needs = setting.value, changed(setting.value), []
    if second is None:
        return None
    of_option: dict[str, str | None] = OF_OPTION.get(option, {})
    chosen: dict[str, str | None] = {**TINY, **({group: name} if option else {}), **of_option}
    chosen |= {word.partition("=")[0]: word.partition("=")[2] for word in needs}
    chosen.pop(path, None)
    words = [f"{key}={text}" for key, text in chosen.items() if text is not None]
    if group in OF_SWEEPS or path == "seeds":
        words = ["-m", *words, *SWEEP, *OF_SWEEP_OPTION.get(group, ())]
    return Pair(tuple(words), f"{path}={first}", f"{path}={second}")


PAIRS = [pair for setting in settings() if (pair := pair_of(setting)) is not None]
