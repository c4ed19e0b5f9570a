"""All randomness: a generator is a pure function of (seed, purpose, epoch).

Of randomness a checkpoint holds nothing at the end of an epoch, since the next one begins with the numbers it would have drawn,
and within an epoch how far the streams have come. Two runs with one seed see the same initialization, split, order and masks
whatever else differs.
"""

import hashlib
import random
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import torch
from torch import Tensor


def derive(seed: int, purpose: str, epoch: int = 0) -> int:
    """A 63-bit seed, independent for every (seed, purpose, epoch), the same on every machine."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{epoch}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, purpose: str, epoch: int = 0, *, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator on `device` that stands at the start of the stream (seed, purpose, epoch)."""
    return torch.Generator(device=device).manual_seed(derive(seed, purpose, epoch))


def beta(alpha: float, *, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """A number drawn from Beta(alpha, alpha) and what is left to 1, (2,), on the device of the generator."""
    concentration = torch.full((2,), alpha, dtype=dtype, device=generator.device)
    # torch.distributions.Beta samples with this call too, but gives no way to pass a generator.
    return torch._sample_dirichlet(concentration, generator=generator)


@contextmanager
def global_seed(seed: int, purpose: str) -> Iterator[None]:
    """Seed the global generators (torch's for the CPU, numpy's, Python's) inside the block only, for code that accepts none."""
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        number = derive(seed, purpose)
        torch.manual_seed(number)
        np.random.seed(number % 2**32)
        random.seed(number)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


class Noise:
    """The random numbers of one place in a model, for example of one dropout layer.

    `begin(epoch)` puts the stream at the start of that epoch; draws then follow one another. A place has a stream of its
    own, so that adding noise somewhere else does not change what it draws.
    """

    def __init__(self, seed: int, purpose: str) -> None:
        self.seed = seed
        self.purpose = purpose
        self._generators: dict[torch.device, torch.Generator] = {}
        self._epoch = 0

    def begin(self, epoch: int) -> None:
        self._epoch = epoch
        for generator in self._generators.values():
            generator.manual_seed(derive(self.seed, self.purpose, epoch))

    def position(self) -> dict[str, Tensor]:
        """How far it has come in the current epoch, by the device that it was drawn on."""
        return {str(device): generator.get_state() for device, generator in self._generators.items()}

    def move_to(self, position: Mapping[str, Tensor]) -> None:
        for device, state in position.items():
            self.on(torch.device(device)).set_state(state)

    def on(self, device: torch.device) -> torch.Generator:
        """The generator of the current epoch on `device`."""
        if device not in self._generators:
            self._generators[device] = generator(self.seed, self.purpose, self._epoch, device=device)
        return self._generators[device]

    def uniform_like(self, x: Tensor) -> Tensor:
        """Uniform on [0, 1), with the shape, dtype and device of x."""
        return torch.rand(x.shape, generator=self.on(x.device), dtype=x.dtype, device=x.device)

    def normal_like(self, x: Tensor) -> Tensor:
        """Standard normal, with the shape, dtype and device of x."""
        return torch.randn(x.shape, generator=self.on(x.device), dtype=x.dtype, device=x.device)


class Streams:
    """The noise streams of one run, made on demand and moved on together at the start of an epoch.

    Under data parallelism every `rank` draws for its own part of a batch, so each has streams of its own.
    """

    def __init__(self, seed: int, *, rank: int = 0) -> None:
        self.seed = seed
        self.rank = rank
        self._streams: dict[str, Noise] = {}
        self._epoch = 0

    def stream(self, purpose: str, *, shared: bool = False) -> Noise:
        """The stream of that purpose, at the start of the current epoch where it is asked for for the first time.

        A `shared` one is the same on every rank.
        """
        if purpose not in self._streams:
            suffix = f"@{self.rank}" if self.rank and not shared else ""
            self._streams[purpose] = Noise(self.seed, purpose + suffix)
            self._streams[purpose].begin(self._epoch)
        return self._streams[purpose]

    def begin(self, epoch: int) -> None:
        self._epoch = epoch
        for stream in self._streams.values():
            stream.begin(epoch)

    def positions(self) -> dict[str, dict[str, Tensor]]:
        """How far the streams have come in the current epoch, by purpose; see `move_to`."""
        return {purpose: stream.position() for purpose, stream in self._streams.items()}

    def move_to(self, epoch: int, positions: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Stand in that epoch where `positions` were taken."""
        self.begin(epoch)
        for purpose, position in positions.items():
            self.stream(purpose).move_to(position)

    def global_seed(self, purpose: str) -> AbstractContextManager[None]:
        """`global_seed` with this run's seed, the same on every rank."""
        return global_seed(self.seed, purpose)
