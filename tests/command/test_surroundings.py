"""What is looked for on the machine before torch is imported."""

import errno
import os
from pathlib import Path

import pytest
import torch

from conftest import compose
from data_files import write_images
from ockham import schema
from ockham.command.surroundings import check_folder, check_surroundings, gpu_is_absent
from ockham.errors import UserError


def check(*overrides: str) -> None:
    check_surroundings(schema.container(compose(*overrides)), overrides)


def test_a_gpu_that_torch_sees_is_not_called_absent() -> None:
    assert not (torch.cuda.is_available() and gpu_is_absent())


def test_val_samples_are_a_mistake_where_the_folder_has_a_validation_split(tmp_path: Path) -> None:
    write_images(tmp_path, count=1)
    settings = ("data=image_folder", f"data.root={tmp_path}")
    check(*settings, "data.val_samples=0.2")
    (tmp_path / "val").mkdir()
    check(*settings)
    with pytest.raises(UserError, match=r"data.val_samples=0.2 changes nothing: .*val is the validation split; leave it out"):
        check(*settings, "data.val_samples=0.2")


def test_a_look_at_a_folder_leaves_what_was_there(tmp_path: Path) -> None:
    check_folder("hydra.run.dir", tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").touch()
    check_folder("hydra.run.dir", tmp_path / "a")
    assert (tmp_path / "a" / "file").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "run", tmp_path / "file", tmp_path / ("x" * 300)):
        with pytest.raises(UserError, match=r"hydra.run.dir=.* cannot be made .*: choose another folder"):
            check_folder("hydra.run.dir", path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(file: object, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(UserError, match=r"hydra.run.dir=.*: the file system has no locks \("):
        check_folder("hydra.run.dir", tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    for path in (tmp_path, tmp_path / "run"):
        with pytest.raises(UserError, match="cannot be made"):
            check_folder("hydra.run.dir", path)
