"""A callback of Hydra that writes down which jobs it is shown."""

from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class Seen(Callback):
    """A line in <sweep>/seen.txt for the start and the end of each job."""

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.runtime.output_dir).name
        self._write(config, f"start {config.hydra.job.num} {config.optimizer._target_} in {folder}")

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        self._write(config, f"end {config.hydra.job.num} {job_return.status.name} {type(job_return.return_value).__name__}")

    @staticmethod
    def _write(config: DictConfig, line: str) -> None:
        with (Path(config.hydra.sweep.dir) / "seen.txt").open("a") as file:
            file.write(f"{line}\n")
