"""hydra/sweeper=ockham: conditional grids, seeds, folds, continued where they stopped. See ockham.sweep."""

from collections.abc import Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class OckhamSweeper(Sweeper):
    """Hands the overrides of `-m` to ockham.sweep.main.sweep, or where the application is not Ockham to a plain grid."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task_function, self.base = hydra_context, task_function, config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Sequence[Any]:
        from hydra_plugins.ockham_launcher import OckhamLauncher
        from ockham.sweep.main import sweep
        from ockham.sweep.other_applications import is_ockham, sweep_grid

        def launch_batch(jobs: list[list[str]], first: int) -> Sequence[Any]:
            return self.launcher.launch(jobs, initial_job_idx=first)

        if not is_ockham(self.base):
            return sweep_grid(arguments, context=self.context, config=self.base, launch_batch=launch_batch)
        return sweep(
            arguments,
            context=self.context,
            config=self.base,
            task_function=self.task_function,
            launch_batch=None if isinstance(self.launcher, OckhamLauncher) else launch_batch,
        )


ConfigStore.instance().store(
    group="hydra/sweeper",
    name="ockham",
    node={"_target_": "hydra_plugins.ockham_sweeper.OckhamSweeper"},
    provider="ockham",
)
