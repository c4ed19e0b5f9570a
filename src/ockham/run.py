"""What one run consists of, as objects: made by build.py, executed by lit."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ockham.core.clipping import Clipping
from ockham.core.selection import Criterion, best_position, cost, maximised
from ockham.core.target import Target
from ockham.data import Augment, InputSpec, Normalize, Split, Splits
from ockham.data.batches import order, steps_per_epoch
from ockham.reg import Regularizer
from ockham.reg.base import has_hook
from ockham.rng import Streams
from ockham.schedules import Schedule

#: Where a run does not say it, train/* is measured on this many training images, or as many as val has if that is more.
PROBE_SAMPLES = 5000


@dataclass(frozen=True)
class Settings:
    """The numbers of a run.

    An optimizer step takes `accumulate` batches of `batch_size` samples, worked on one by one; a run ends after
    `max_epochs` epochs or `max_steps` optimizer steps, whichever comes first.
    """

    seed: int
    objective: str
    loss: str
    batch_size: int
    shuffle: bool
    max_epochs: int | None
    max_steps: int | None
    accumulate: int
    clipping: Clipping | None
    accelerator: str
    devices: int
    precision: str
    #: Training images that train/* is measured on.
    probe_samples: int | None = None
    #: Steps from one evaluation to the next; an epoch's where it is None. The last step is followed by one in any case.
    evaluate_every: int | None = None
    #: Whether the selected weights are evaluated on the test set too.
    test: bool = True
    #: Names of `core.measures`.
    measure: tuple[str, ...] = ()
    target: Target | None = None
    #: Whether the run ends at the first evaluation that meets the target.
    stop_at_target: bool = False


@dataclass(frozen=True)
class Run:
    """One run, ready to be executed."""

    settings: Settings
    splits: Splits
    normalize: Normalize
    augment: Augment | None
    model: nn.Module
    regularizers: tuple[Regularizer, ...]
    make_optimizer: Callable[[nn.Module], Optimizer]
    schedule: Schedule
    streams: Streams

    def probe(self, splits: Splits) -> Split:
        """The sample of the training set that train/* is measured on."""
        return splits.train.probe(self.settings.probe_samples or max(PROBE_SAMPLES, len(splits.val)))

    def judged(self, splits: Splits) -> dict[str, Split]:
        """The splits that the selected weights are evaluated on at the end, by name."""
        return {name: split for name, split in splits.named().items() if name != "test" or self.settings.test}

    @property
    def step_size(self) -> int:
        """Samples of an optimizer step."""
        return self.settings.batch_size * self.settings.accumulate

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(len(self.splits.train), self.step_size)

    @property
    def passes(self) -> int:
        """Forward and backward passes of a step."""
        return 2 if any(has_hook(regularizer, "perturb") for regularizer in self.regularizers) else 1

    @property
    def total_steps(self) -> int:
        limits = []
        if self.settings.max_epochs is not None:
            limits.append(self.settings.max_epochs * self.steps_per_epoch)
        if self.settings.max_steps is not None:
            limits.append(self.settings.max_steps)
        return min(limits)

    @property
    def num_epochs(self) -> int:
        """Epochs begun: the last one is shorter where max_steps ends it."""
        return -(-self.total_steps // self.steps_per_epoch)

    @property
    def trainings(self) -> int:
        """Of equal length, one after the other: see `Regularizer.trainings`."""
        return max((regularizer.trainings for regularizer in self.regularizers), default=1)

    @property
    def steps_per_training(self) -> int:
        """What a schedule is stretched over."""
        return self.total_steps // self.trainings

    def epoch_of(self, step: int) -> int:
        """The epoch, from 1, that the step with this number, from 1, belongs to."""
        return -(-step // self.steps_per_epoch)

    def stretches(self, begin: int, end: int) -> Iterator[Tensor]:
        """The training samples (n,) that the steps after `begin` finished ones take, up to `end`, epoch by epoch."""
        samples, steps = len(self.splits.train), self.steps_per_epoch
        while begin < end:
            epoch, first = divmod(begin, steps)
            last = min(end - epoch * steps, steps)
            whole = order(samples, seed=self.settings.seed, epoch=epoch, shuffle=self.settings.shuffle)
            yield whole[first * self.step_size : last * self.step_size]
            begin = epoch * steps + last

    def samples_after(self, step: int) -> int:
        """What so many finished steps have worked on."""
        epochs, steps = divmod(step, self.steps_per_epoch)
        return epochs * len(self.splits.train) + steps * self.step_size

    @property
    def interval(self) -> int:
        """Steps from one evaluation to the next."""
        return self.settings.evaluate_every or self.steps_per_epoch

    @property
    def num_evaluations(self) -> int:
        """Of a run that goes to its last step, which one follows."""
        return -(-self.total_steps // self.interval)

    def next_evaluation(self, step: int) -> int:
        """The step that is followed by the first evaluation after `step` finished ones."""
        return min((step // self.interval + 1) * self.interval, self.total_steps)

    @property
    def repeats(self) -> int:
        """Copies of a batch that go through the model side by side while training."""
        return max((regularizer.repeats for regularizer in self.regularizers), default=1)

    def training_batch(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """What is trained on of normalised images (n, *shape) and classes (n,): augmented, which may make class probabilities
        of these, and `repeats` times.
        """
        if self.augment is not None:
            x, y = self.augment(
                x,
                y,
                generator=self.streams.stream("augment").on(x.device),
                black=self.normalize.black(),
                white=self.normalize.white(),
                num_classes=len(self.splits.classes),
            )
        if self.repeats > 1:
            x, y = (torch.cat([each] * self.repeats) for each in (x, y))
        return x, y

    @property
    def maximise(self) -> bool:
        return maximised(self.settings.objective)

    def costs(self, history: Sequence[Criterion]) -> list[float]:
        """The objective of every evaluation as a number to be minimised."""
        return [cost(criterion, maximise=self.maximise)[0] for criterion in history]

    def criterion(self, scalars: Mapping[str, float]) -> Criterion:
        """What an evaluation is judged by."""
        return Criterion(scalars[self.settings.objective], scalars["val/loss"])

    def is_better(self, criterion: Criterion, than: Criterion) -> bool:
        """Whether an evaluation is selected rather than an earlier one."""
        return cost(criterion, maximise=self.maximise) < cost(than, maximise=self.maximise)

    def best_row(self, history: Sequence[Criterion]) -> int:
        """The number, from 1, of the evaluation that is selected among those of the last one's training; 0 before any."""
        begin = self._first_of_training(len(history) - 1)
        return begin + best_position(history[begin:], maximise=self.maximise) + 1 if history else 0

    def is_first_of_training(self, row: int) -> bool:
        """Of evaluations counted from 1."""
        return self._first_of_training(row - 1) == row - 1

    def _first_of_training(self, index: int) -> int:
        """The index of the first evaluation in the training of the evaluation with an index."""
        length = self.num_evaluations // self.trainings
        return index // length * length

    def stops(self, history: Sequence[Criterion]) -> bool:
        """Whether a regularizer ends the run after these evaluations."""
        stopping = [regularizer for regularizer in self.regularizers if has_hook(regularizer, "stop")]
        costs = self.costs(history) if stopping else []  # of thousands they take their time
        return any(regularizer.stop(costs) for regularizer in stopping)

    def seen_by_schedule(self, history: Sequence[Criterion]) -> list[float]:
        """The costs of the evaluations in the training that goes on, where the schedule depends on them."""
        return self.costs(history[self._first_of_training(len(history)) :]) if self.schedule.depends_on_results else []

    @property
    def input(self) -> InputSpec:
        return InputSpec(self.normalize.shape, self.normalize.mean, self.normalize.std, self.splits.classes)

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)

    @property
    def device(self) -> torch.device:
        return torch.device(self.settings.accelerator)

    @property
    def device_name(self) -> str:
        """The hardware that it trains on, as a person would name it."""
        on_cuda = self.settings.accelerator == "cuda"
        name = torch.cuda.get_device_name(0) if on_cuda else f"cpu, {torch.get_num_threads()} threads"
        return name if self.settings.devices == 1 else f"{self.settings.devices} x {name}"

    @property
    def memory_format(self) -> torch.memory_format:
        return memory_format_of(self.model)


def memory_format_of(model: nn.Module) -> torch.memory_format:
    """Channels last for convolutional models: on CPU such a step takes two thirds of the time."""
    convolutional = any(isinstance(module, nn.Conv2d) for module in model.modules())
    return torch.channels_last if convolutional else torch.contiguous_format
