"""The log of a run on a disk that is full."""

import logging
from contextlib import suppress
from pathlib import Path

import pytest

from ockham.core.log_file import LogFile


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
def test_a_line_that_a_full_disk_refuses_is_lost_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    file = LogFile("/dev/full")
    file.emit(logging.LogRecord("x", logging.INFO, __file__, 0, "a line", (), None))
    assert capsys.readouterr().err == ""
    file.emit(logging.LogRecord("x", logging.INFO, __file__, 0, "%d", ("no number",), None))
    assert "TypeError" in capsys.readouterr().err, "a mistake of the program is shown"
    with suppress(OSError):
        file.close()
