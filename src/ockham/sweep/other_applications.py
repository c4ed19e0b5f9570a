"""A sweep of any other Hydra application through Ockham's sweeper: a conditional grid, and nothing else of Ockham."""

from collections.abc import Sequence
from pathlib import Path

from hydra.core.utils import JobReturn
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from ockham.sweep.axes import parse_axes
from ockham.sweep.batches import LaunchBatch, run_in_batches
from ockham.sweep.folder import SweepFolder
from ockham.sweep.grid import grid
from ockham.sweep.jobs import make_replicates
from ockham.sweep.planning import command_line


def is_ockham(config: DictConfig) -> bool:
    """Whether this is the configuration of Ockham itself."""
    return "optimizer" in config and "executor" in config


def sweep_grid(
    arguments: Sequence[str], *, context: HydraContext, config: DictConfig, launch_batch: LaunchBatch
) -> list[Sequence[JobReturn]]:
    """Run every combination of the arguments that is missing in the sweep folder. Raises what a job raised."""
    axes = parse_axes(arguments, context.config_loader)
    line = command_line(axes, config=config, config_loader=context.config_loader)
    plan = grid([line], make_replicates(None, None))
    folder = SweepFolder(Path(str(config.hydra.sweep.dir)))
    folder.begin([axis.argument for axis in axes], plan)
    OmegaConf.save(config, folder.path / "multirun.yaml")
    return run_in_batches(plan, folder, launch_batch)
