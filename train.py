"""Train one classifier, or with -m many: python train.py --help."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))  # a bare clone works without being installed

import hydra
from omegaconf import DictConfig

from ockham import cli
from ockham.core.garbage import uncollected


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(config: DictConfig) -> float:
    """One job: what Hydra composed, to the objective."""
    with uncollected("torch"):
        from ockham.execute import task_function  # here, so that --help and mistakes do not wait for torch

    return cli.execute(task_function, config)


if __name__ == "__main__":
    cli.launch(main)
