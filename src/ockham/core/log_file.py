"""The log of a run as a file, for Python's logging; conf/hydra/job_logging names it."""

import logging
import sys


class LogFile(logging.FileHandler):
    """A file of log lines. A line that a full disk refuses is lost: what a run needs is said by its other files, or ends it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is that of logging
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)
