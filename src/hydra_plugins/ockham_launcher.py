"""hydra/launcher=ockham: jobs in worker processes that are reused, one a GPU or core. See ockham.sweep.executors."""

from collections.abc import Sequence

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class OckhamLauncher(Launcher):
    """Hands a batch of jobs to ockham.sweep.launcher.launch; Ockham's own sweeper goes to the executors directly."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task_function, self.base = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from ockham.sweep.launcher import launch

        return launch(job_overrides, initial_job_idx, context=self.context, config=self.base, task_function=self.task_function)


ConfigStore.instance().store(
    group="hydra/launcher",
    name="ockham",
    node={"_target_": "hydra_plugins.ockham_launcher.OckhamLauncher"},
    provider="ockham",
)
