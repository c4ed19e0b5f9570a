"""The command line as a user meets it: mistakes, help, exit codes, Hydra's own sweeps."""

import math
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from conftest import ROOT, SMALL, make_job
from data_files import write_images
from ockham import schema
from ockham.execute import execute
from ockham.identity import run_key
from ockham.record.folder import RunFolder


def train(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


#: Arguments -> what the screen must say: what is wrong, then the override to change or the nearest name.
MISTAKES = {
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
    "optimizer.lr=fast": ["optimizer.lr=fast is not possible", "a number above 0"],
    "optimizer.lr=-1": ["optimizer.lr=-1 is not possible", "a number above 0"],
    "optimizer.lr=null": ["optimizer.lr=null is not possible", "a number above 0"],
    "optimizer.betas=[0.9]": ["optimizer.betas=[0.9] is not possible", "a list of 2 entries"],
    "reg=dropout reg.dropout.rate=1": ["reg.dropout.rate=1 is not possible", "at least 0 and below 1"],
    "reg=l2 reg.l2.scale=mean": ["reg.l2.scale=mean is not possible", "one of sum, half_mean"],
    "seed=-1": ["seed=-1 is not possible"],
    "seed=1.5": ["seed=1.5 is not possible"],
    "model.hidden=3": ["model.hidden=3 is not possible", "a list"],
    "model.activation=rleu": ["model.activation=rleu is not possible", "relu"],
    "model=mlp model.batch_norm=1": ["model.batch_norm=1 is not possible", "true or false"],
    "data.batch_size=all": ["data.batch_size=all is not possible", "full"],
    "trainer.max_epochs=null": ["trainer.max_epochs and trainer.max_steps are both null"],
    "optimizer=lbfgs data.batch_size=64": ["optimizer=lbfgs", "data.batch_size=64", "data.batch_size=full"],
    "model=cnn data.shape=[784]": ["model=cnn takes images", "is flat", "model=mlp"],
    "model=cnn model.channels=[4,4,4,4,4]": ["halves the image 5 times", "at most 4 entries"],
    "augment=shift data.shape=[784]": ["is flat", "augment=none"],
    "reg=kl_sparsity": ["reg=kl_sparsity", "model.activation=sigmoid"],
    "cv=5": ["cv=5 is for sweeps: add -m"],
    "seeds=3": ["seeds=3 is for sweeps: add -m"],
    "resume=nowhere": ["nowhere does not exist"],
    "objective=test/acc": ["objective=test/acc is not possible", "val/acc"],
    "optimizer.lr=[1": ["no viable alternative"],
    "+optimizer.extra=${nothing}": ["optimizer.extra", "nothing"],
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_mistake_is_one_screen_without_traceback(arguments: str, tmp_path: Path) -> None:
    result = train(*arguments.split(), cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) <= 12
    assert "Traceback" not in result.stderr
    for part in MISTAKES[arguments]:
        assert part in result.stderr
    assert not list(tmp_path.iterdir()), "a mistake left files behind"


def test_a_finished_folder_is_not_written_over(tmp_path: Path) -> None:
    job = make_job(tmp_path / "run", *SMALL)
    execute(job)
    before = {path: path.read_bytes() for path in sorted(job.folder.path.rglob("*")) if path.is_file()}
    result = train("optimizer=sgd", f"hydra.run.dir={job.folder.path}")
    assert result.returncode == 2
    assert "holds a finished run: choose another hydra.run.dir" in result.stderr
    assert {path: path.read_bytes() for path in sorted(job.folder.path.rglob("*")) if path.is_file()} == before


def begin(folder: Path) -> RunFolder:
    """A run of SMALL that was killed after its last epoch, before it was finished."""
    job = make_job(folder, *SMALL)
    execute(job)
    (folder / "metrics.json").unlink()
    job.folder.begin(run_key(schema.container(job.config)))
    return job.folder


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


def test_resume_refuses_what_would_make_it_another_run(tmp_path: Path) -> None:
    folder = begin(tmp_path / "run")
    result = train(f"resume={folder.path}", "optimizer.lr=0.5")
    assert result.returncode == 2
    assert "optimizer.lr=0.5 would make it another run" in result.stderr
    assert train(f"resume={folder.path}", "trainer.max_epochs=6").returncode == 0
    assert folder.metrics()["last_epoch"] == 6


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


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_an_absent_gpu_is_a_mistake(tmp_path: Path) -> None:
    result = train("trainer=gpu", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr == "error: trainer.accelerator=gpu, but torch sees no CUDA GPU here: set trainer=cpu or trainer=auto\n"


def test_divergence_has_its_own_exit_code(tmp_path: Path) -> None:
    result = train(*SMALL, "optimizer=sgd", "optimizer.lr=1e30", f"hydra.run.dir={tmp_path}/run")
    assert result.returncode == 3
    assert "diverged" in result.stdout
    assert "Traceback" not in result.stderr
    assert RunFolder(tmp_path / "run").state == "diverged"


def test_ctrl_c_leaves_a_run_that_can_be_continued(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    command = [sys.executable, str(ROOT / "train.py"), *SMALL, "trainer.max_epochs=100000", f"hydra.run.dir={folder.path}"]
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
    arguments = [*SMALL, "trainer=smoke", "optimizer._target_=mine.Mine", "~optimizer.betas"]
    refused = train(*arguments, cwd=tmp_path)
    assert refused.returncode == 2
    assert "optimizer._target_=mine.Mine is outside the packages" in refused.stderr
    assert "trust=[mine]" in refused.stderr
    command = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv = ['train.py', *{[*arguments, 'trust=[mine]']!r}]"
    run = f"{command}; import runpy; runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')"
    allowed = subprocess.run([sys.executable, "-c", run], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert allowed.returncode == 0, allowed.stderr


def test_an_image_folder_trains_from_the_command_line(tmp_path: Path) -> None:
    write_images(tmp_path / "images", count=12)
    result = train(
        *("data=image_folder", f"data.root={tmp_path}/images", "data.size=8", "model=cnn", "model.channels=[4]"),
        *("augment=flip_crop", "trainer=smoke", f"hydra.run.dir={tmp_path}/run"),
    )
    assert result.returncode == 0, result.stderr
    assert math.isfinite(RunFolder(tmp_path / "run").metrics()["test/loss"])


def test_an_absent_data_set_is_one_screen(tmp_path: Path) -> None:
    result = train("data=image_folder", "data.root=nowhere", cwd=tmp_path)
    assert result.returncode == 2
    assert "nowhere/train does not exist" in result.stderr
    assert "Traceback" not in result.stderr
