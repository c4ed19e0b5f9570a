"""Noise that members of a group draw as each would alone."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ockham.reg.single import draw_like
from ockham.run import Run


class Draw(NamedTuple):
    """A noise that is drawn for every batch: from the streams `stream` of the members in `rows`, one of each seed.

    `shape` is that of one draw, without the axis of samples where `by_sample` asks for one.
    """

    stream: str
    distribution: Literal["uniform", "normal"]
    shape: tuple[int, ...]
    by_sample: bool
    rows: tuple[int, ...] = ()


class MemberNoise:
    """What some members draw for every batch, by the hook, regularizer and layer or parameter that it is for."""

    def __init__(self, runs: Sequence[Run], like: Tensor) -> None:
        """Noise has the dtype of `like` and is on its device."""
        self.runs, self.like = runs, like
        self.seeds = [run.settings.seed for run in runs]
        self.draws: dict[str, Draw] = {}
        #: Of each noise of several seeds, which of the draws each member takes, (members,).
        self.places: dict[str, Tensor] = {}

    def add(self, key: str, rows: Sequence[int], draw: Draw) -> None:
        """A draw for the members in `rows`.

        Members of one seed share a draw; one without the noise draws nothing and gets the numbers of any other.
        """
        first_of = {self.seeds[row]: row for row in reversed(rows)}
        self.draws[key] = draw._replace(rows=tuple(first_of.values()))
        if len(first_of) > 1:
            draw_of = {seed: position for position, seed in enumerate(first_of)}
            self.places[key] = torch.tensor([draw_of.get(seed, 0) for seed in self.seeds], device=self.like.device)

    def draw(self, n: int = 0) -> dict[str, Tensor]:
        """The noise of a batch of n samples as each member draws it alone: (draws, n, width), for weights (draws, out, in)."""
        noise = {}
        for key, draw in self.draws.items():
            like = self.like.new_empty(n, *draw.shape) if draw.by_sample else self.like.new_empty(draw.shape)
            streams = [self.runs[row].streams.stream(draw.stream) for row in draw.rows]
            noise[key] = torch.stack([draw_like(like, stream, draw.distribution) for stream in streams])
        return noise
