"""How long something that goes on in epochs will take."""

import statistics
from collections import deque
from itertools import pairwise

#: The median over so many intervals is taken: a compilation in between is none of them, and a group that shrinks gets faster.
INTERVALS = 5


class Pace:
    """Seconds an epoch takes, from when epochs were seen to have ended.

    What came before the first one was seen, such as imports and compilation, does not count.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[int, float]] = deque(maxlen=INTERVALS + 1)

    def saw(self, epoch: int, now: float) -> None:
        """So many epochs had ended at this time in seconds, by any clock; fewer than before begin anew."""
        if self._seen and epoch < self._seen[-1][0]:
            self._seen.clear()
        if epoch > (self._seen[-1][0] if self._seen else 0):
            self._seen.append((epoch, now))

    @property
    def seconds(self) -> float | None:
        """Of an epoch; None before two were seen."""
        ends = list(self._seen)
        intervals = [(end - begin) / (last - first) for (first, begin), (last, end) in pairwise(ends)]
        return statistics.median(intervals) if intervals else None

    def seconds_left(self, num_epochs: int, now: float) -> float | None:
        """Until so many epochs have ended, less what has passed of the one that runs; None before two were seen."""
        if self.seconds is None:
            return None
        epoch, ended = self._seen[-1]
        of_this_one = min(now - ended, self.seconds)  # one that takes longer than others says nothing about those to come
        return max(self.seconds * (num_epochs - epoch) - of_this_one, 0.0)


def duration(seconds: float) -> str:
    """In the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
