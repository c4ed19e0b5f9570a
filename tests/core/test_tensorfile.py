"""Files of tensors say when they are damaged."""

from pathlib import Path

import pytest
import torch

from comparison import assert_equal
from ockham.core import tensorfile
from ockham.core.files import DamagedFileError

CONTENT = {
    "epoch": 3,
    "rows": [[1, 2.5, float("inf")], []],
    "model": {"w": torch.randn(4, 3), "b": torch.zeros(0), "half": torch.ones(2, dtype=torch.bfloat16), "n": torch.tensor(7)},
    "none": None,
}


def test_content_comes_back(tmp_path: Path) -> None:
    tensorfile.save(tmp_path / "file.ckpt", CONTENT)
    assert_equal(tensorfile.load(tmp_path / "file.ckpt"), CONTENT, "content")


def test_torch_reads_it_too(tmp_path: Path) -> None:
    tensorfile.save(tmp_path / "file.ckpt", CONTENT)
    assert torch.equal(torch.load(tmp_path / "file.ckpt", weights_only=True)["model"]["w"], CONTENT["model"]["w"])


def test_every_flipped_byte_is_noticed_or_harmless(tmp_path: Path) -> None:
    file = tmp_path / "file.ckpt"
    tensorfile.save(file, CONTENT)
    whole = file.read_bytes()
    noticed = 0
    for place in range(0, len(whole), 7):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            content = tensorfile.load(file)
        except DamagedFileError:
            noticed += 1
        else:
            assert_equal(content, CONTENT, "content")
    assert noticed > 20


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04" + b"\0" * 100])
def test_other_files_are_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.ckpt").write_bytes(content)
    with pytest.raises(DamagedFileError, match="file.ckpt"):
        tensorfile.load(tmp_path / "file.ckpt")


def test_swapped_tensors_are_noticed(tmp_path: Path) -> None:
    first, second = torch.ones(2), torch.zeros(2)
    sealed = tensorfile.checksum({"a": first, "b": second})
    torch.save({"sha256": sealed, "a": second, "b": first}, tmp_path / "file.ckpt")
    with pytest.raises(DamagedFileError, match="damaged"):
        tensorfile.load(tmp_path / "file.ckpt")
