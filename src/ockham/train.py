"""The program `ockham`, and in a checkout `python train.py`: it trains, or looks at what was trained."""

import sys

import hydra
from omegaconf import DictConfig

from ockham import cli
from ockham.command.options import CONF
from ockham.core.garbage import uncollected
from ockham.record.screen import program


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def train(config: DictConfig) -> float:
    """One job: what Hydra composed, to the objective."""
    with uncollected("torch"):
        from ockham.execute import task_function  # here, so that --help and mistakes do not wait for torch

    return cli.execute(task_function, config)


def main() -> None:
    """Do what the words of the command say; ends the process with the exit codes of `cli`."""
    command, *arguments = sys.argv[1:] or [""]
    if command == "report":
        from ockham.report import command_line as report  # late, as the next: training needs none of it

        report.main(arguments, program=f"{program()} report")
    elif command == "evaluate":
        from ockham import evaluate

        evaluate.main(arguments, program=f"{program()} evaluate")
    elif command == "export":
        from ockham.report import trackers

        trackers.main(arguments, program=f"{program()} export")
    else:
        cli.launch(train)
