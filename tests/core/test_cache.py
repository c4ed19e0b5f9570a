import logging
from pathlib import Path

import pytest

from ockham.core import cache


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "ockham"


def never() -> bytes:
    raise AssertionError("it is there")


def test_what_was_made_once_is_not_made_again(folder: Path) -> None:
    assert cache.cached("thing-1", lambda: b"content") == b"content"
    assert cache.cached("thing-1", never) == b"content"
    assert cache.cached("thing-2", lambda: b"of another version") == b"of another version"
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("damage", ["changed", "cut", "empty", "renamed"])
def test_a_file_that_does_not_hold_what_was_kept_is_named_and_made_again(
    folder: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    cache.cached("thing-1", lambda: b"content")
    cache.cached("thing-2", lambda: b"other")
    file = folder / "thing-1"
    kept = file.read_bytes()
    changed = {"changed": kept[:-1] + b"!", "cut": kept[:-1], "empty": b"", "renamed": (folder / "thing-2").read_bytes()}
    file.write_bytes(changed[damage])
    with caplog.at_level(logging.WARNING, "ockham"):
        assert cache.cached("thing-1", lambda: b"content") == b"content"
    assert f"{file} is damaged" in caplog.text
    assert cache.cached("thing-1", never) == b"content"


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_folder_that_others_can_write_into_is_not_used(folder: Path, mode: int) -> None:
    cache.cached("thing-1", lambda: b"content")
    folder.chmod(mode)
    assert cache.cached("thing-1", lambda: b"made") == b"made"


def test_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    assert cache.cached("thing-1", lambda: b"content") == b"content"
    assert not list((tmp_path / "elsewhere").iterdir())


def test_without_a_folder_everything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cache.cached("thing-1", lambda: b"content") == b"content"
