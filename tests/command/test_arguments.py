"""Commands that are right pass; those that are not are in tests/test_cli.py."""

import re
import shlex

import pytest

from conftest import ROOT
from ockham.command.arguments import check_arguments

IN_README = [
    line.strip().removeprefix("$ ").removeprefix("python train.py ").partition("  #")[0]
    for line in (ROOT / "README.md").read_text().splitlines()
    if re.match(r"^ {4}(\$ )?python train\.py \S", line) and "optimizer=adm" not in line
]


@pytest.mark.parametrize(
    "command",
    [
        *IN_README,
        "cv=5 fold=1",
        "cv=null data.val_samples=100",
        "-m cv=5 seeds=[0,7]",
        "-m optimizer=glob(ada*)",
        "-m optimizer=choice(sgd,adam) seed=range(3)",
        "-m 'reg=[l2,dropout],none'",
        """-m 'grids=[["optimizer=adam","optimizer.lr=1,2"],["optimizer=sgd"]]'""",
        "-m search=tpe prune=asha optimizer=sgd,adam 'optimizer.lr=tag(log, interval(1e-4, 1))'",
        "-m hydra/launcher=joblib report=false seed=0,1",
        "-m hydra.sweep.dir=x",
        "sweep=null seeds=null dry_run=false prune=none",
        "resume=x trainer.max_epochs=9",
        "optimizer._target_=mine.Own ~optimizer.betas trust=[mine]",
        "--config-dir=mine optimizer=own",
        "-cd mine optimizer=own",
        "hydra.searchpath=[file://mine] optimizer=mine/own",
        "+experiment=mnist_dropout ~hydra.callbacks.check",
        "\"data.root='gr\u00f6\u00dfe'\"",
        "--cfg job",
    ],
)
def test_a_command_that_is_right_passes(command: str) -> None:
    words = shlex.split(command)
    check_arguments(words, multirun="-m" in words)


def test_the_readme_has_commands() -> None:
    assert len(IN_README) >= 8
