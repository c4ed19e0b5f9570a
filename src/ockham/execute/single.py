"""One run: the task function that every launcher and sweeper calls."""

import math
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ockham import build, schema
from ockham.core.garbage import uncollected
from ockham.core.selection import maximised
from ockham.errors import UserError
from ockham.execute.devices import on_devices
from ockham.record.folder import RunFolder
from ockham.record.ledger import Ledger, RunSpec, opened
from ockham.record.resume import stored_choices, stored_config
from ockham.sweep.prune import pruner


def task_function(config: DictConfig) -> float:
    """Train the classifier that `config` describes; returns the objective at the selected weights, NaN if it diverged.

    Works in the output folder that Hydra gave this job. A run that was interrupted there continues from its last epoch.
    Raises UserError for a configuration that cannot work, naming the override to change.
    """
    hydra = HydraConfig.get()
    folder = RunFolder(hydra.runtime.output_dir)
    overrides = tuple(hydra.overrides.task)
    in_sweep = hydra.mode == RunMode.MULTIRUN
    choices = {str(group): str(option) for group, option in hydra.runtime.choices.items()}
    stored: Any = OmegaConf.to_container(hydra, resolve=False)
    if config.resume is not None:
        config, choices, stored = stored_config(folder, overrides, trust=config.trust), stored_choices(folder), None
    warnings = tuple(schema.check(schema.container(config)))
    spec = RunSpec(config, choices, overrides, folder, stored, warnings)
    try:
        return execute(spec, pictures=not in_sweep)
    except UserError:
        if in_sweep and folder.state == "finished":
            # The worker of a sweep that was killed came to the end after the next one had begun.
            return float(folder.metrics()["objective"])
        raise


def execute(spec: RunSpec, *, pictures: bool = True) -> float:
    """Run it to its end, in this process or in one process per device; returns the objective, NaN if it diverged.

    The final `pictures` take a second, which the many runs of a sweep do without.
    """
    ledger = Ledger(spec, prune=pruner(spec.config.prune, spec.folder, spec.config.objective))
    with opened([ledger]):
        devices = build.settings_of(spec.config, num_samples=1).devices
        if devices > 1:
            on_devices(train, spec, pictures, number=devices)
        else:
            train(spec, pictures, ledger=ledger)
    state = spec.folder.state
    if state == "diverged":
        return math.nan
    if state == "pruned":
        best = max if maximised(spec.config.objective) else min
        return best(row[spec.config.objective] for row in spec.folder.epochs())
    return float(spec.folder.metrics()["objective"])


def train(spec: RunSpec, pictures: bool, *, ledger: Ledger | None = None, rank: int = 0) -> None:
    """What one process does: build, fit from the last checkpoint on, and on rank 0 the record and the final figures.

    `ledger` is that of the run where it trains in one process. Of several, that of rank 0 keeps the record.
    """
    if ledger is None:
        ledger = Ledger(spec, prune=pruner(spec.config.prune, spec.folder, spec.config.objective), writes=rank == 0)
    run = build.run(spec.config, rank=rank)
    checkpoint = ledger.recover()
    ledger.start(run)
    try:
        if not ledger.is_complete:
            with uncollected("pytorch_lightning"):
                from ockham.lit import fit  # late: groups do without Lightning, and mistakes do not wait for it
            fit(run, ledger, checkpoint)
        if ledger.is_complete and ledger.verdict in ("continue", "done"):
            ledger.finish(pictures=pictures)
    finally:
        ledger.close()
