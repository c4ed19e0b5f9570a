"""The command line as a user meets it: mistakes, help, exit codes, Hydra's own sweeps."""

import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import ROOT, SMALL, make_spec
from data_files import write_images
from faults.one_process import Left, run_all
from ockham import schema
from ockham.command.surroundings import gpu_is_absent
from ockham.execute import execute
from ockham.identity import run_key
from ockham.record.folder import RunFolder


def train(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=os.environ | environment)


LONG = "x" * 5000

#: Words of a command -> what the screen must say: what is wrong, then the override to change or the nearest name.
MISTAKES = {
    # Names
    "optimizer=adm": ["optimizer=adm is not known", "optimizer=adam?", "nesterov"],
    "reg=[l2,dropot]": ["reg=dropot is not known", "reg=dropout?"],
    "optmizer=adam": ["optmizer is no setting", "optimizer?"],
    "optimizer.lrr=0.1": ["optimizer.lrr is no setting", "optimizer.lr?"],
    "modle.hidden=[3]": ["modle.hidden is no setting", "model.hidden?"],
    "optimizer.momentum=0.9": ["optimizer.momentum is no setting", "optimizer.lr, optimizer.betas"],
    "reg.l1.strength=1": ["l1 is not chosen", "add reg=l1"],
    "reg=dropout reg.l1.strength=1": ["l1 is not chosen", "'reg=[dropout,l1]'"],
    "+foo.bar=1": ["foo.bar is no setting"],
    "+trainer.max_epoch=3": ["trainer.max_epoch is no setting", "trainer.max_epochs?"],
    "resume=nowhere": ["nowhere does not exist"],
    f"resume={LONG}": ["does not exist"],
    "optimizer.momentum=0.9 optimizer=sgd": ["optimizer.momentum is no setting", "it is a setting of optimizer=lars, momentum"],
    "-m search.trials=3": ["search.trials is no setting", "it is a setting of search=cmaes, gp"],
    "lr=0.1": ["lr is no setting", "did you mean optimizer.lr?"],
    "l2.strength=0.1": ["l2.strength is no setting", "did you mean reg.l2.strength?", "reg=l2"],
    "+reg.l2.strength=1": ["reg.l2 is set, but l2 is not chosen", "add reg=l2"],
    # Words that are no override, no flag and no command
    "adam": ["adam", "group=option or key=value"],
    "raport x": ["raport cannot be read", "did you mean report?"],
    "optimizer adam": ["optimizer names no option", "write optimizer=adam"],
    "optimizer:adam": ["optimizer:adam cannot be read", "write optimizer=adam"],
    "optimizer = adam": ["optimizer stands by itself", "leave no space around ="],
    "optimizer= adam": ["adam stands by itself", "leave no space around ="],
    "--optimizer adam": ["--optimizer is no flag", "optimizer=..."],
    "-optimizer.lr=1": ["-optimizer.lr=1 is no flag", "as in optimizer.lr=1"],
    "--multirum seed=1,2": ["--multirum is no flag", "did you mean --multirun?"],
    "-M seed=1,2": ["-M is no flag", "did you mean -m"],
    "\u2013m seed=1,2": ["\u2013m cannot be read", "EN DASH"],
    "optimizer\uff1dadam": ["cannot be read", "FULLWIDTH EQUALS SIGN"],
    # Given twice, or without a value
    "optimizer=adam optimizer=sgd": ["optimizer=adam and optimizer=sgd choose twice", "leave one of them out"],
    "reg=l1 reg=l2": ["reg=l1 and reg=l2 choose twice", "'reg=[l1,l2]'"],
    "reg=[l2,l2]": ["reg=[l2,l2] names an option twice"],
    "reg=[]": ["reg=[] names no option", "reg=none"],
    "seed=1 seed=-2": ["seed=1 changes nothing: seed=-2 follows", "seed=-2 is not possible"],
    "+optimizer=adam": ["+optimizer=adam is not possible", "leave the + out"],
    "optimizer.lr=": ["optimizer.lr= has no value", "write optimizer.lr=<value>"],
    "hydra.run.dir=": ["hydra.run.dir= has no value"],
    "-m hydra.sweep.dir=": ["hydra.sweep.dir= has no value"],
    # Options that are files of another name, or none, or several
    "optimizer=adam/../sgd": ["optimizer=adam/../sgd is not known", "one of: adadelta"],
    "optimizer=adam.yaml": ["optimizer=adam.yaml is not known", "did you mean optimizer=adam?"],
    "optimizer=[adam,sgd]": ["optimizer=[adam,sgd] is not possible", "choose one option"],
    "optimizer=null": ["optimizer=null is not possible", "choose an option of adadelta"],
    "reg=[l2,null]": ["reg=[l2,null] is not possible"],
    "~optimizer": ["~optimizer is not possible", "choose an option with optimizer=..."],
    "~reg": ["~reg is not possible", "reg=none for nothing"],
    "~optimizer.lr": ["~optimizer.lr is not possible", "set optimizer.lr=... to another value"],
    f"optimizer={LONG}": ["optimizer=xxx"],
    # Words that cannot be read
    "optimizer.lr=[1": ["optimizer.lr=[1 cannot be read", "brackets do not match"],
    "optimizer.lr='1": ["optimizer.lr='1 cannot be read", "a quote is not closed"],
    "optimizer=\u0430dam": ["optimizer=\u0430dam cannot be read", "CYRILLIC SMALL LETTER A"],
    "\u043eptimizer=adam": ["\u043eptimizer=adam cannot be read", "CYRILLIC SMALL LETTER O"],
    "-m grids=[[optimizer=adam]]": ["grids=[[optimizer=adam]] cannot be read", "stands in quotes"],
    '-m grids=[["optimizer=adm"]]': ["optimizer=adm is not known"],
    # Values
    "optimizer.lr=fast": ["optimizer.lr=fast is not possible", "a number above 0"],
    "optimizer.lr=-1": ["optimizer.lr=-1 is not possible", "a number above 0"],
    "optimizer.lr=null": ["optimizer.lr=null is not possible", "a number above 0"],
    "optimizer.lr={a:1}": ["optimizer.lr={'a': 1} is not possible", "a number above 0"],
    "optimizer.betas=[0.9]": ["optimizer.betas=[0.9] is not possible", "a list of 2 entries"],
    "reg=dropout reg.dropout.rate=1": ["reg.dropout.rate=1 is not possible", "at least 0 and below 1"],
    "reg=l2 reg.l2.scale=mean": ["reg.l2.scale=mean is not possible", "one of sum, half_mean"],
    "seed=-1": ["seed=-1 is not possible"],
    "seed=1.5": ["seed=1.5 is not possible"],
    "model.hidden=3": ["model.hidden=3 is not possible", "a list"],
    "model.hidden={a:1}": ["model.hidden"],
    "model.activation=rleu": ["model.activation=rleu is not possible", "relu"],
    "model=mlp model.batch_norm=1": ["model.batch_norm=1 is not possible", "true or false"],
    "data.batch_size=all": ["data.batch_size=all is not possible", "full"],
    "trainer.max_epochs=null": ["trainer.max_epochs and trainer.max_steps are both null"],
    "objective=test/acc": ["objective=test/acc is not possible", "val/acc"],
    "+optimizer.extra=${nothing}": ["optimizer.extra", "nothing"],
    f"objective={LONG}": ["objective=xxx"],
    f"+optimizer.{LONG}={LONG}": ["optimizer.xxx"],
    # Against each other (more in tests/schema)
    "optimizer=lbfgs data.batch_size=64": ["optimizer=lbfgs", "data.batch_size=64", "data.batch_size=full"],
    "model=cnn data.shape=[784]": ["model=cnn takes images", "is flat", "model=mlp"],
    "model=cnn model.channels=[4,4,4,4,4]": ["halves the image 5 times", "at most 4 entries"],
    "model=resnet model.depth=9": ["model.depth=9", "6 n + 2"],
    "augment=shift data.shape=[784]": ["is flat", "augment=none"],
    "reg=kl_sparsity": ["reg=kl_sparsity", "model.activation=sigmoid"],
    "data.train_samples=5": ["data.train_samples=5", "between 10"],
    "cv=5 fold=0 data=mnist data.val_samples=100": ["data.val_samples changes nothing with cv"],
    # The machine
    **({"trainer=gpu": ["trainer.accelerator=gpu", "set trainer=cpu or trainer=auto"]} if gpu_is_absent() else {}),
    "data=image_folder": ["data=image_folder", "set data.root"],
    "data=image_folder data.root=nowhere": ["nowhere/train does not exist", "data.root"],
    f"data=image_folder data.root={LONG}": ["does not exist"],
    "hydra.run.dir=/proc/run": ["hydra.run.dir=/proc/run cannot be made", "choose another folder"],
    f"hydra.run.dir={LONG}": ["hydra.run.dir=xxx"],
    "-m seed=1,2 hydra.sweep.dir=/proc/sweep": ["hydra.sweep.dir=/proc/sweep cannot be made"],
    # Settings of sweeps
    "cv=5": ["cv=5 is for sweeps: add -m"],
    "seeds=3": ["seeds=3 is for sweeps: add -m"],
    "optimizer=sgd,adam": ["optimizer=sgd,adam names several values", "add -m"],
    "executor.slots=2": ["executor.slots=2 is for sweeps: add -m"],
    "executor=inline": ["executor=inline is for sweeps: add -m"],
    "retries=1": ["retries=1 is for sweeps: add -m"],
    "fuse=off": ["fuse=off is for sweeps: add -m"],
    "max_failures=2": ["max_failures=2 is for sweeps: add -m"],
    "on_failure=stop": ["on_failure=stop is for sweeps: add -m"],
    "report=false": ["report=false is for sweeps: add -m"],
    "search=tpe": ["search=tpe is for sweeps: add -m"],
    "search.trials=3": ["search.trials=3 is for sweeps: add -m"],
    "prune=asha": ["prune=asha is for sweeps: add -m"],
    "hydra.sweep.dir=x": ["hydra.sweep.dir=x is for sweeps: add -m"],
    "experiment=wilson_grid data.root=x": ["the experiment sets seeds", "add -m"],
    "-m cv=3,5": ["cv=3,5 names several values", "one of cv"],
    "-m seeds=3,5": ["seeds=3,5 names several values"],
    "-m search=tpe,gp": ["search=tpe,gp names several values"],
    "-m objective=val/acc,val/loss": ["objective=val/acc,val/loss names several values"],
    "-m cv=5 fold=1": ["fold changes nothing with cv", "runs all folds"],
    "-m seeds=3 seed=1,2": ["seed changes nothing with seeds"],
    "-m search=tpe hydra/sweeper=basic": ["search=tpe changes nothing with hydra/sweeper=basic"],
    "-m executor.slots=2 hydra/launcher=basic": ["executor.slots=2 changes nothing with hydra/launcher=basic"],
    "-m seed=1,2 hydra.run.dir=x": ["hydra.run.dir is for a single run", "sweep=<name>"],
    "-m sweep=..": ["sweep=.. is not possible"],
    "-m sweep=../b": ["sweep=../b is not possible"],
    f"-m sweep={LONG}": ["sweep=xxx", "200 letters"],
    "-m sweep=a hydra.sweep.dir=b": ["sweep changes nothing with hydra.sweep.dir"],
    "-m resume=old": ["resume=old continues a single run: leave -m out"],
}


@pytest.fixture(scope="module")
def mistakes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Left]:
    return run_all({words: words.split(" ") for words in MISTAKES}, tmp_path_factory.mktemp("mistakes"))


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_one_screen_before_torch_is_imported(words: str, mistakes: dict[str, Left]) -> None:
    left = mistakes[words]
    assert left.code == 2, left.errors
    assert left.errors.startswith(("error: ", "warning: "))
    assert len(left.errors.splitlines()) <= 12
    assert len(left.errors) < 2000
    assert "Traceback" not in left.errors
    for part in MISTAKES[words]:
        assert part in left.errors
    assert left.files == [], "a mistake left files behind"
    assert not left.imported_torch


def test_a_finished_folder_is_not_written_over(tmp_path: Path) -> None:
    spec = make_spec(tmp_path / "run", *SMALL)
    execute(spec)
    before = {path: path.read_bytes() for path in sorted(spec.folder.path.rglob("*")) if path.is_file()}
    result = train("optimizer=sgd", f"hydra.run.dir={spec.folder.path}")
    assert result.returncode == 2
    assert "holds a finished run: choose another hydra.run.dir" in result.stderr
    assert {path: path.read_bytes() for path in sorted(spec.folder.path.rglob("*")) if path.is_file()} == before


def begin(folder: Path) -> RunFolder:
    """A run of SMALL that was killed after its last epoch, before it was finished."""
    spec = make_spec(folder, *SMALL)
    execute(spec)
    (folder / "metrics.json").unlink()
    spec.folder.begin(run_key(schema.container(spec.config)))
    return spec.folder


def test_a_folder_with_another_run_begun_is_refused_with_the_differences(tmp_path: Path) -> None:
    folder = begin(tmp_path / "run")
    config = folder.config_file.read_bytes()
    result = train(*SMALL, "optimizer.lr=0.5", f"hydra.run.dir={folder.path}")
    assert result.returncode == 2
    assert "optimizer.lr: 0.001 there, 0.5 now" in result.stderr
    assert folder.config_file.read_bytes() == config


def test_the_same_command_again_finishes_what_was_begun(tmp_path: Path) -> None:
    folder = begin(tmp_path / "run")
    result = train(*SMALL, f"hydra.run.dir={folder.path}")
    assert result.returncode == 0, result.stderr
    assert "continuing after epoch 4" in result.stdout
    assert (folder.state, folder.status()["attempt"]) == ("finished", 3)


def test_resume_lengthens_a_finished_run_and_refuses_what_would_make_it_another(tmp_path: Path) -> None:
    spec = make_spec(tmp_path / "run", *SMALL)
    execute(spec)
    commands = {word: [f"resume={spec.folder.path}", word] for word in ("optimizer.lr=0.5", "seed=0", "trainer.max_epochs=2")}
    refused = run_all(commands, tmp_path)
    assert "optimizer.lr=0.5 would make it another run" in refused["optimizer.lr=0.5"].errors
    assert "has 4 epochs, 28 steps already" in refused["trainer.max_epochs=2"].errors
    assert {left.code for left in refused.values()} == {2}
    assert not any(left.imported_torch for left in refused.values())
    assert train(f"resume={spec.folder.path}", "trainer.max_epochs=6").returncode == 0
    assert (spec.folder.metrics()["last_epoch"], spec.folder.state) == (6, "finished")


def test_two_decays_at_once_are_warned_of(tmp_path: Path) -> None:
    result = train(*SMALL, "trainer=smoke", "optimizer=adamw", "reg=l2", cwd=tmp_path)
    assert result.returncode == 0
    assert "warning: reg=l2 and optimizer.weight_decay=0.01 shrink the same weights" in result.stdout


def test_a_run_without_a_terminal_prints_lines_and_where_to_look(tmp_path: Path) -> None:
    result = train(*SMALL, "reg=l2", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    (folder,) = (tmp_path / "outputs" / "runs").glob("*/*")
    for part in ("adam (lr 0.001", "l2 (strength 0.0001", "12,730 parameters", "epoch 4/4", "test", "tensorboard --logdir"):
        assert part in result.stdout
    assert str(folder.relative_to(tmp_path)) in result.stdout
    assert "epoch 4/4" in (folder / "train.log").read_text()
    assert {path.name for path in (folder / ".hydra").iterdir()} == {"config.yaml", "overrides.yaml", "hydra.yaml"}


def test_divergence_has_its_own_exit_code(tmp_path: Path) -> None:
    result = train(*SMALL, "optimizer=sgd", "optimizer.lr=1e30", f"hydra.run.dir={tmp_path}/run")
    assert result.returncode == 3
    assert "diverged" in result.stdout
    assert "Traceback" not in result.stderr
    assert RunFolder(tmp_path / "run").state == "diverged"


def test_ctrl_c_leaves_a_run_that_can_be_continued(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    endless = [*(word for word in SMALL if "max_epochs" not in word), "trainer.max_epochs=100000"]
    command = [sys.executable, str(ROOT / "train.py"), *endless, f"hydra.run.dir={folder.path}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not folder.last_checkpoint.exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130, errors
    assert errors.startswith("error: interrupted; the same command")
    assert "Traceback" not in errors
    assert folder.status()["state"] == "failed"
    assert folder.status()["error"]["message"] == "interrupted"


def test_hydras_own_sweep_runs_every_job(tmp_path: Path) -> None:
    result = train("-m", *SMALL, "optimizer=sgd,adam", "seed=0,1", f"hydra.sweep.dir={tmp_path}/sweep")
    assert result.returncode == 0, result.stderr
    folders = [RunFolder(tmp_path / "sweep" / str(number)) for number in range(4)]
    assert [folder.state for folder in folders] == ["finished"] * 4
    assert len({folder.metrics()["val/loss"] for folder in folders}) == 4


def test_a_diverged_job_does_not_end_hydras_sweep(tmp_path: Path) -> None:
    arguments = ["-m", *SMALL, "optimizer=sgd", "optimizer.lr=1e30,0.1", f"hydra.sweep.dir={tmp_path}/sweep"]
    assert train(*arguments).returncode == 0
    assert [RunFolder(tmp_path / "sweep" / number).state for number in "01"] == ["diverged", "finished"]


def test_help_groups_the_options_and_says_how_to_sweep() -> None:
    result = train("--help")
    assert result.returncode == 0
    assert "python train.py -m " in result.stdout
    for group in ("augment", "data", "model", "optimizer", "reg", "schedule", "trainer"):
        assert re.search(rf"^\s*{group}: ", result.stdout, re.MULTILINE), group
    assert len(result.stdout.splitlines()) < 50


def test_a_class_of_the_users_own_needs_trust(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import torch\n\nclass Mine(torch.optim.SGD):\n    pass\n")
    arguments = [*SMALL, "trainer=smoke", "optimizer._target_=mine.Mine", "~optimizer.betas", "~optimizer.eps"]
    refused = train(*arguments, cwd=tmp_path)
    assert refused.returncode == 2
    assert "optimizer._target_=mine.Mine is outside the packages" in refused.stderr
    assert "trust=[mine]" in refused.stderr
    allowed = train(*arguments, "trust=[mine]", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert allowed.returncode == 0, allowed.stderr


def test_a_fault_is_its_last_line_and_the_place_of_its_traceback(tmp_path: Path) -> None:
    source = (
        "import torch\n\nclass Mine(torch.optim.SGD):\n    def step(self, closure=None):\n        raise ValueError('broken')\n"
    )
    (tmp_path / "mine.py").write_text(source)
    arguments = [
        *SMALL,
        "optimizer._target_=mine.Mine",
        "~optimizer.betas",
        "~optimizer.eps",
        "trust=[mine]",
        f"hydra.run.dir={tmp_path}/run",
    ]
    result = train(*arguments, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    log = tmp_path / "run" / "train.log"
    assert result.returncode == 1
    assert result.stderr == f"error: ValueError: broken\n  its traceback is in {log}\n"
    assert "Traceback (most recent call last)" in log.read_text()


def test_an_image_folder_trains_from_the_command_line(tmp_path: Path) -> None:
    write_images(tmp_path / "images", count=12)
    result = train(
        *("data=image_folder", f"data.root={tmp_path}/images", "data.size=8", "model=cnn", "model.channels=[4]"),
        *("augment=flip_crop", "trainer=smoke", f"hydra.run.dir={tmp_path}/run"),
    )
    assert result.returncode == 0, result.stderr
    assert math.isfinite(RunFolder(tmp_path / "run").metrics()["test/loss"])
