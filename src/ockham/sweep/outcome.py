"""How a task ended. Errors cross from process to process as plain data, since an exception may not survive the way."""

import traceback
from dataclasses import dataclass

import cloudpickle
from hydra.core.utils import JobReturn, JobStatus

from ockham.errors import UserError


class JobFailedError(RuntimeError):
    """A job failed in another process; the message has the type and the text of its error."""


@dataclass(frozen=True)
class Failure:
    """An error by its type, message and traceback.

    `is_mistake`: it was a UserError. `interrupted`: the task did not fail by itself; its process died, or was told to end, or
    ran out of time.
    """

    kind: str
    message: str
    traceback: str = ""
    is_mistake: bool = False
    interrupted: bool = False
    #: Of an error of the operating system.
    errno: int | None = None

    @classmethod
    def of(cls, error: BaseException, *, interrupted: bool = False) -> "Failure":
        return cls(
            kind=type(error).__name__,
            message=_text(error),
            traceback="".join(traceback.format_exception(error)),
            is_mistake=isinstance(error, UserError),
            interrupted=interrupted or not isinstance(error, Exception),
            errno=error.errno if isinstance(error, OSError) else None,
        )

    @property
    def reason(self) -> str:
        """Its last line."""
        return (self.message.strip().splitlines() or [self.kind])[-1]

    def exception(self) -> Exception:
        """An exception with this message, for whoever expects one."""
        if self.errno is not None:
            error = OSError(self.message)
            error.errno = self.errno
            return error
        return UserError(self.message) if self.is_mistake else JobFailedError(f"{self.kind}: {self.message}")


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # an exception of anybody's own class
        return ""


Outcome = JobReturn | Failure


@dataclass(frozen=True)
class EndedTask:
    """A task that ended, by the number of its first job."""

    number: int
    outcome: Outcome


def run_payload(payload: bytes) -> Outcome:
    """Run what an executor was given. An error is part of the outcome; Ctrl-C and sys.exit pass."""
    try:
        returned: JobReturn = cloudpickle.loads(payload)()
    except Exception as error:
        return Failure.of(error)
    return Failure.of(returned._return_value) if returned.status == JobStatus.FAILED else returned


def packed(outcome: Outcome) -> bytes:
    """The outcome on its way to the process that sweeps; one that does not survive it has failed."""
    try:
        return cloudpickle.dumps(outcome)
    except Exception as error:
        return cloudpickle.dumps(Failure.of(error))


def unpacked(content: bytes) -> Outcome:
    """What `packed` made, in the process that sweeps."""
    try:
        outcome: Outcome = cloudpickle.loads(content)
    except Exception as error:  # what a job returned is of any class
        return Failure.of(error)
    return outcome
