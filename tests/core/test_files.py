"""Files say when they are not what was written."""

import json
from pathlib import Path

import pytest

from ockham.core.files import DamagedFileError, read_sealed_json, sealed_json

CONTENT = {"state": "finished", "lr": 0.1, "none": None, "jobs": [{"number": 0, "note": 'a "quoted" sha256'}], "text": "größe"}


def test_sealed_content_comes_back_and_any_program_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    file.write_bytes(sealed_json(CONTENT))
    assert read_sealed_json(file) == CONTENT
    assert {key: value for key, value in json.loads(file.read_text()).items() if key != "sha256"} == CONTENT


def test_every_flipped_byte_is_noticed_or_harmless(tmp_path: Path) -> None:
    file, whole = tmp_path / "file.json", sealed_json(CONTENT)
    noticed = 0
    for place in range(len(whole)):
        for mask in (1, 0x10):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ mask]) + whole[place + 1 :])
            try:
                content = read_sealed_json(file)
            except DamagedFileError:
                noticed += 1
            else:  # in the name of the checksum
                assert CONTENT.items() <= content.items()
    assert noticed > 2 * len(whole) - 30


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, '{"a": ' + "9" * 5000 + "}", "\xff"])
def test_what_is_no_object_is_damaged(text: str, tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(DamagedFileError, match=r"file\.json is damaged"):
        read_sealed_json(file)


def test_a_file_of_an_earlier_version_has_no_checksum(tmp_path: Path) -> None:
    (tmp_path / "file.json").write_text(json.dumps(CONTENT))
    assert read_sealed_json(tmp_path / "file.json") == CONTENT
