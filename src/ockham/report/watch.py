"""The page of a sweep while it runs: written again and again, and loaded again by the browser that shows it."""

import time
from collections.abc import Callable
from pathlib import Path

from ockham.report.reading import RecordedRuns

#: The page is written so often, and loads itself again after as long; one that takes long takes a quarter of the time at most.
SECONDS_BETWEEN_PAGES = 20
SHARE_OF_TIME = 0.25


def watch(
    read: Callable[[], RecordedRuns],
    write: Callable[[RecordedRuns, int | None], list[Path]],
    *,
    wait: Callable[[float], None] = time.sleep,
) -> list[Path]:
    """Write the page of what `read` finds until nothing runs or waits, seen twice in a row; returns the files of the last.

    `write` is told after how many seconds the page is to load itself again; the last page, also after Ctrl-C, does not. A
    search asks for its next trials once the last have ended: hence the second look. Raises KeyboardInterrupt after Ctrl-C.
    """
    settled: list[tuple[str, str]] | None = None
    seconds = SECONDS_BETWEEN_PAGES
    try:
        while True:
            recorded = read()
            states = [(str(run.path), run.state) for run in recorded.runs]
            is_over = bool(states) and not recorded.waiting and all(state != "running" for _, state in states)
            if is_over and states == settled:
                return write(recorded, None)
            settled = states if is_over else None
            if states or recorded.problems:
                began = time.monotonic()
                write(recorded, seconds)
                seconds = max(SECONDS_BETWEEN_PAGES, round((time.monotonic() - began) / SHARE_OF_TIME))
            wait(seconds)
    except KeyboardInterrupt:
        recorded = read()
        if recorded.runs or recorded.problems:
            write(recorded, None)
        raise
