"""The executors that reach beyond this process, and launchers of others: the results are those of the worker processes."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from hydra.core.utils import JobReturn, JobStatus

from conftest import ROOT, SMALL
from ockham.errors import UserError
from ockham.sweep.cluster import Ray, _packed, _run_on_node, _unpack
from sweeps import start, sweep, table

SETTINGS = ("optimizer=sgd,adam", "seed=0,1")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """results.csv of the sweep in worker processes."""
    folder = tmp_path_factory.mktemp("reference") / "sweep"
    assert sweep(folder, *SETTINGS)[0] == 0
    return (folder / "results.csv").read_bytes()


@pytest.mark.parametrize(
    "executor",
    [
        ("executor=inline",),
        ("executor=slurm", "executor.cluster=local", "executor.slots=2"),
        ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
        ("hydra/launcher=basic",),
    ],
    ids=lambda executor: executor[0],
)
def test_every_executor_and_launcher_gives_the_same_results(
    executor: tuple[str, ...], reference: bytes, tmp_path: Path
) -> None:
    code, out, errors = sweep(tmp_path / "sweep", *SETTINGS, *executor)
    assert code == 0, errors + out
    assert [row["state"] for row in table(tmp_path / "sweep", "results.csv")] == ["finished"] * 4
    if executor[0] == "executor=slurm":  # the others do not set the number of threads, on which the last bits depend
        assert (tmp_path / "sweep" / "results.csv").read_bytes() == reference


def test_pruning_works_in_the_process_itself(tmp_path: Path) -> None:
    arguments = ("optimizer.lr=0.01,1e-7", "prune=asha", "executor=inline")
    assert sweep(tmp_path / "sweep", *arguments)[0] == 0
    assert [row["state"] for row in table(tmp_path / "sweep", "results.csv")] == ["finished", "pruned"]


@pytest.fixture
def two_nodes() -> Iterator[Any]:
    """A Ray cluster of two nodes on this machine, one core each: (cluster, the second node)."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1)
    yield cluster, second
    cluster.shutdown()


def test_a_sweep_on_ray_outlives_a_node(two_nodes: Any, tmp_path: Path) -> None:
    cluster, second = two_nodes
    folder = tmp_path / "sweep"
    settings = ("seed=range(6)", "trainer.max_epochs=100", "executor=ray", f"executor.address={cluster.address}")
    process = start(folder, *settings)
    while len(list(folder.glob("*/checkpoints/last.ckpt"))) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    cluster.remove_node(second, allow_graceful=False)
    out, errors = process.communicate()
    assert process.returncode == 0, errors + out
    assert [row["state"] for row in table(folder, "results.csv")] == ["finished"] * 6


def test_without_a_shared_folder_run_folders_travel(tmp_path: Path) -> None:
    """What a node does that does not see the sweep's file system: it gets what is there and returns what it made."""
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "3").mkdir(parents=True)
    (here / "3" / "begun").write_text("before")
    (here / "sweep.json").write_text("{}")

    def job() -> JobReturn:
        assert (there / "3" / "begun").read_text() == "before"
        (there / "3" / "metrics.json").write_text("made")
        return JobReturn(status=JobStatus.COMPLETED)

    files = _packed(here, ["sweep.json", "3", "4"])
    outcome, returned = _run_on_node(cloudpickle.dumps(job), str(ROOT), 1, [3, 4], str(there), str(tmp_path / "unseen"), files)
    assert cloudpickle.loads(outcome).status == JobStatus.COMPLETED
    assert returned is not None
    (here / "sweep.json").write_text("grown")
    _unpack(returned, here)
    assert (here / "3" / "metrics.json").read_text() == "made"
    assert (here / "sweep.json").read_text() == "grown"


def test_without_the_extra_a_mistake_names_it(tmp_path: Path) -> None:
    blocked = "import sys; sys.modules['ray'] = None; sys.argv = ['train.py', *sys.argv[1:]]; import runpy; " \
        "runpy.run_path('train.py', run_name='__main__')"  # fmt: skip
    command = [sys.executable, "-c", blocked, "-m", *SMALL, "seed=0,1", "executor=ray", f"hydra.sweep.dir={tmp_path}/sweep"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 2, process.stderr
    assert process.stderr == "error: executor=ray needs the package ray: pip install 'ockham[ray]'\n"


def test_a_cluster_of_another_python_is_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version of Python is not here: Ray's own words stand for it."""

    def refuse(**settings: object) -> None:
        raise RuntimeError("Version mismatch: The cluster was started with:\n    Python: 3.13.0")

    monkeypatch.setattr("ray.init", refuse)
    options: dict[str, Any] = {"slots": None, "threads": 1, "gpus_per_job": 0.0, "timeout": None, "folder": tmp_path}
    for address, place in ((None, "on this machine"), ("10.0.0.1:6379", "at executor.address=10.0.0.1:6379")):
        with pytest.raises(UserError, match=f"the Ray cluster {place} cannot be joined: Version mismatch"):
            Ray(address=address, **options)
