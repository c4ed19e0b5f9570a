"""The life of one run in its folder, whoever trains it.

A run is opened before anything of it is built, so that whatever goes wrong stands in its status. An engine (Lightning, or a
fused group) trains until the next evaluation, measures it, and hands both to `close_interval`, which writes them down and
answers whether the run goes on. Best weights, checkpoints, cost and the final figures are kept here alone.

An interval is the steps from one evaluation to the next: an epoch, where trainer.evaluate_every does not say another number.
"""

import json
import logging
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from omegaconf import DictConfig
from torch import Tensor

from ockham import schema
from ockham.core.selection import Criterion
from ockham.identity import checkpoint_key, run_key
from ockham.record import final, screen
from ockham.record.checkpoint import (
    Checkpoint,
    Row,
    load_generation,
    rows_from_content,
    rows_to_content,
    save_generation,
)
from ockham.record.cost import flops_per_sample, peak_memory_bytes, reset_peak_memory
from ockham.record.events import HPARAM_METRICS, TEST_METRICS, EventWriter, hparam_settings
from ockham.record.folder import TARGET_SECONDS, RunFolder, divergence
from ockham.record.hydra_files import write_hydra_files
from ockham.record.resume import check_resumable
from ockham.reg.base import has_hook
from ockham.run import Run

log = logging.getLogger("ockham")

#: Of train.log, as in conf/hydra/job_logging.
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

#: Runs continue bit for bit from any checkpoint, so that short intervals need not write one each.
SECONDS_BETWEEN_CHECKPOINTS = 1.0

#: Floating-point operations of a sample in training, by what decides them.
_flops_by_model: dict[str, int] = {}

Verdict = Literal["continue", "done", "diverged", "pruned"]
"""After an interval: train another one; come to the end and be judged; or end without being judged."""


@dataclass(frozen=True)
class RunSpec:
    """One run as it was asked for: its configuration, the option chosen in each group, the overrides behind both, its folder.

    `hydra` is what .hydra/hydra.yaml holds; None where Hydra's files are left as they are. `warnings` are about the settings.
    """

    config: DictConfig
    choices: Mapping[str, str]
    overrides: tuple[str, ...]
    folder: RunFolder
    hydra: Mapping[str, Any] | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class IntervalResult:
    """What an engine says of an interval: steps of the run so far and samples that it has worked on, its scalars and seconds.

    `seconds` are those of training; of runs that share a process, their share.
    """

    step: int
    samples: int
    scalars: Mapping[str, float]
    seconds: float


class TrainingState(Protocol):
    """What a checkpoint keeps of an engine. The tensors may be those that training goes on with."""

    def weights(self) -> Mapping[str, Tensor]:
        """The model's state_dict, with the weights that are trained."""

    def averaged_weights(self) -> Mapping[str, Tensor]:
        """What was measured with in place of entries of the state_dict; empty where that are the trained weights."""

    def averages(self) -> Mapping[str, Tensor]:
        """What a regularizer keeps of each parameter, by its name; empty where none does."""

    def optimizer_state(self) -> dict[str, Any]:
        """The state_dict of the run's torch optimizer."""


class Ledger:
    """The record of one run. Of several runs that share a process, `shared` is their number.

    With `writes=False` it judges as always and leaves nothing: so are members of a group computed again that have ended for
    good, since the last bits of their neighbours may depend on the size of the group.
    """

    def __init__(
        self,
        spec: RunSpec,
        *,
        prune: Callable[[Sequence[float]], bool] | None = None,
        shared: int = 1,
        writes: bool = True,
    ) -> None:
        """`prune` is asked with the objectives so far, to be minimised, whether the run is to end as pruned."""
        self.spec = spec
        self.content = schema.container(spec.config)
        self.key = checkpoint_key(self.content)
        self.folder = spec.folder
        self.prune = prune
        self.shared = shared
        self.writes = writes
        self.rows: list[Row] = []
        self.history: list[Criterion] = []
        #: The selected row, from 1.
        self.best_row = 0
        self.best: dict[str, Tensor] = {}
        self.verdict: Verdict = "continue"
        self.train_seconds = self.past_wall_seconds = 0.0
        #: The row that first meets the run's target, and the train seconds until then; None before there is one.
        self.at_target: Row | None = None
        self.target_seconds: float | None = None
        self.opened = self.last_checkpoint = time.monotonic()
        self.events: EventWriter | None = None

    # -- before training -------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Mark the run as running and store what was asked for. Files that a crash left empty are written again.

        Raises UserError where the folder holds a run that has ended for good.
        """
        check_resumable(self.folder)
        if self.spec.hydra is not None:
            write_hydra_files(self.folder, config=self.content, hydra=self.spec.hydra, overrides=self.spec.overrides)
        self.folder.begin(run_key(self.content), note=self.content.get("note"))

    def recover(self) -> Checkpoint | None:
        """The state that the run continues from; None where it begins. A damaged one is named and the one before it taken."""
        content = load_generation(self.folder.last_checkpoint, run=self.key, warn=self.warn)
        if content is None:
            return None
        checkpoint = Checkpoint.of(content)
        self.rows = list(checkpoint.rows)
        self.best = dict(checkpoint.best if checkpoint.best is not None else checkpoint.model)
        past = self.folder.cost()
        self.train_seconds = float(past.get("train_seconds", 0.0))
        self.past_wall_seconds = float(past.get("wall_seconds", 0.0))
        self.target_seconds = past.get(TARGET_SECONDS)
        return checkpoint

    def start(self, run: Run) -> None:
        """Take up the record where the state ends: what was written after it is written again."""
        self.run = run
        self.history = [run.criterion(row.scalars) for row in self.rows]
        self.best_row = run.best_row(self.history)
        self.at_target = next((row for row in self.rows if self._meets_target(row)), None)
        reset_peak_memory(run.device)
        if not self.writes:
            return
        # The final figures may be among the curves, at the last step: they would stand there twice.
        had_ended = bool(self.folder.metrics()) or self.is_complete
        summary = screen.summary(self.spec.config, self.spec.choices, run, self.folder)
        self.log("%s%s", "" if self.shared == 1 else f"in a group of {self.shared} runs\n", summary)
        for warning in self.spec.warnings:
            self.log("warning: %s", warning)
        if self.rows:
            self.log("continuing after epoch %d, step %d", self.epoch, self.step)
        self.folder.write_epochs([(run.epoch_of(row.step), row.step, row.scalars) for row in self.rows])
        self.folder.update_status(device=run.device_name)
        if self.spec.config.logger.tensorboard:
            self.events = self._opened_events(again=had_ended)

    def _opened_events(self, *, again: bool) -> EventWriter:
        """`again`: the run had come to its end, whose figures are written once more; its curves are written anew."""
        settings = hparam_settings(self.content, self.spec.choices)
        if again:
            self.folder.remove_events()
        past_step = 0 if again else self.step
        events = EventWriter(self.folder.path, settings, past_step=past_step, num_rows=self.run.num_evaluations)
        for number, row in enumerate(self.rows if again else [], start=1):
            events.row(number, row.step, row.scalars)
        return events

    # -- the record so far -----------------------------------------------------------------------------------------------

    @property
    def step(self) -> int:
        """Optimizer steps so far."""
        return self.rows[-1].step if self.rows else 0

    @property
    def epoch(self) -> int:
        """The epoch, from 1, of the last step."""
        return self.run.epoch_of(self.step)

    @property
    def is_within_epoch(self) -> bool:
        """Whether the epoch of the last step has not ended."""
        return self.step % self.run.steps_per_epoch != 0

    @property
    def has_ended(self) -> bool:
        return self.verdict != "continue"

    @property
    def is_complete(self) -> bool:
        """Whether the steps that there are make a whole run."""
        has_reached = self.run.settings.stop_at_target and self.at_target is not None
        return has_reached or self.step >= self.run.total_steps or self.run.stops(self.history)

    def _meets_target(self, row: Row) -> bool:
        target = self.run.settings.target
        return target is not None and target.is_met(row.scalars)

    # -- after an interval -----------------------------------------------------------------------------------------------

    def record(self, result: IntervalResult, state: TrainingState) -> None:
        """Write the interval down, keep its weights where they are the best, and judge by them whether the run goes on."""
        samples = result.samples - (self.rows[-1].samples if self.rows else 0)
        self.rows.append(Row(result.step, result.samples, dict(result.scalars)))
        self.history.append(self.run.criterion(result.scalars))
        self.train_seconds += result.seconds
        if self.at_target is None and self._meets_target(self.rows[-1]):
            self.at_target, self.target_seconds = self.rows[-1], self.train_seconds
        if self.writes:
            self.folder.append_epoch(self.epoch, result.step, result.scalars)
        if self.events is not None:
            throughput = {"samples_per_second": samples / max(result.seconds, 1e-9)}
            self.events.row(len(self.rows), result.step, {**result.scalars, **throughput})
        if divergence(result.scalars) is not None:
            self.verdict = "diverged"
            return
        is_first = self.run.is_first_of_training(len(self.rows))
        if is_first or self.run.is_better(self.history[-1], self.history[self.best_row - 1]):
            self.best_row = len(self.rows)
            self._keep({**state.weights(), **state.averaged_weights()})
        if self.is_complete:
            self.verdict = "done"

    def _keep(self, weights: Mapping[str, Tensor]) -> None:
        if self.best:
            for name, value in weights.items():
                self.best[name].copy_(value)
        else:
            self.best = {name: value.detach().clone() for name, value in weights.items()}

    def settle(self, state: TrainingState) -> Verdict:
        """Ask whether others are ahead, which all that train in lockstep have written by now, and act on the verdict."""
        if self.verdict == "continue" and self.prune is not None and self.prune(self.run.costs(self.history)):
            self.verdict = "pruned"
        if not self.writes:
            return self.verdict
        if self.verdict == "diverged":
            reason = divergence(self.rows[-1].scalars)
            self._write_cost()
            self.folder.end("diverged", error=f"{reason} after {self._place}", overrides=self.spec.overrides)
            self.folder.previous_checkpoint.unlink(missing_ok=True)
            self.log("diverged: %s after %s\n  everything until then is in %s", reason, self._place, self.folder.path)
        elif self.verdict != "continue":
            self.save(state)
        if self.verdict == "pruned":
            self.folder.end("pruned")
            self.folder.previous_checkpoint.unlink(missing_ok=True)
            self.log("pruned after %s of its sweep: others are ahead", self._place)
        return self.verdict

    @property
    def _place(self) -> str:
        return f"epoch {self.epoch}" if self.run.settings.evaluate_every is None else f"step {self.step}"

    def save_when_due(self, state: TrainingState) -> None:
        """A checkpoint, where the last one is old enough; of several devices, whose noise differs, at the end of an epoch."""
        if self.is_within_epoch and self.run.settings.devices > 1:
            return
        if time.monotonic() - self.last_checkpoint > SECONDS_BETWEEN_CHECKPOINTS:
            self.save(state)

    def save(self, state: TrainingState) -> None:
        """Checkpoints last: the curves that they continue are on disk before them."""
        if self.events is not None:
            self.events.flush()
        self._write_cost()
        best = self.best_row
        weights = {name: value.detach().clone() for name, value in state.weights().items()}
        input_spec = self.run.input
        best_epoch = self.run.epoch_of(self.rows[best - 1].step)
        Checkpoint(best_epoch, self.rows[:best], self.best, None, None, input_spec).save(
            self.folder.best_checkpoint, run=self.key
        )
        last = Checkpoint(
            epoch=self.epoch,
            rows=self.rows,
            model=weights,
            best=None if best == len(self.rows) and not state.averaged_weights() else self.best,
            optimizer=state.optimizer_state(),
            input=input_spec,
            averages={name: value.detach().clone() for name, value in state.averages().items()},
            streams=self.run.streams.positions() if self.is_within_epoch and not self.has_ended else None,
        )
        save_generation(self.folder.last_checkpoint, last.content(), run=self.key)
        self.last_checkpoint = time.monotonic()

    def _write_cost(self) -> None:
        wall_seconds = self.past_wall_seconds + (time.monotonic() - self.opened) / self.shared
        cost = {
            "samples_per_second": self.rows[-1].samples / max(self.train_seconds, 1e-9),
            "train_seconds": self.train_seconds,
            "wall_seconds": wall_seconds,
            "peak_memory_bytes": peak_memory_bytes(self.run.device),
            "shared": self.shared,
        }
        if self.target_seconds is not None:
            cost[TARGET_SECONDS] = self.target_seconds
        self.folder.write_cost(cost)

    # -- the end ---------------------------------------------------------------------------------------------------------

    def finish(self, *, logits_by_split: Mapping[str, Tensor] | None = None, pictures: bool = False) -> None:
        """The selected weights on their splits, the test set for the first and only time; the run is then finished.

        `logits_by_split` (N, C) are what they give for train, val and, where it is evaluated, test, if that is known. The
        weights go into the run's model.
        """
        if not self.writes:
            return
        evaluation = final.evaluate(self.run, self.best, logits_by_split)
        last = self.rows[-1]
        selected = self.rows[self.best_row - 1]
        metrics = evaluation.metrics(selected, last, flops_per_sample=self._flops_per_sample(), at_target=self.at_target)
        if self.events is not None:
            tags = HPARAM_METRICS | (TEST_METRICS if pictures else {})  # in a sweep, test results invite choosing by them
            self.events.scalars(last.step, {tag: metrics[key] for key, tag in tags.items() if key in metrics})
            for tag, picture in (evaluation.pictures() if pictures else {}).items():
                self.events.picture(tag, picture, last.step)
            self.events.finish()
        self.folder.write_metrics(metrics)
        self.folder.end("finished")
        self.folder.previous_checkpoint.unlink(missing_ok=True)
        self.log("%s", screen.result(self.folder))

    def _flops_per_sample(self) -> int:
        """Counted once for runs of one model, as members of a group are: counting takes longer than the rest of the end."""
        run = self.run
        hooks = ("reparametrize", "configure_model", "jacobian_penalty")
        is_counted = any(has_hook(regularizer, hook) for regularizer in run.regularizers for hook in hooks)
        decisive = [self.content["model"], self.content["reg"] if is_counted else None, run.input.shape, run.input.classes]
        key = json.dumps(decisive)
        if key not in _flops_by_model:
            _flops_by_model[key] = flops_per_sample(run.model, run.input.shape, run.regularizers)
        return _flops_by_model[key]

    def fail(self, error: BaseException) -> None:
        """The run has ended by an error: its status says which, its log has the traceback."""
        interrupted = isinstance(error, (KeyboardInterrupt, SystemExit))
        reason = "interrupted" if interrupted else str(error).strip() or type(error).__name__
        try:
            if not self.writes or self.folder.state != "running":
                return
            self.folder.end("failed", error=reason, kind=type(error).__name__, overrides=self.spec.overrides)
            with self.folder.log_file.open("a") as file:
                traceback.print_exception(error, file=file)
            error.add_note(f"its traceback is in {self.folder.log_file}")
        except OSError as broken:  # a full disk, or no folder any more: the error itself matters more
            log.warning("warning: %s cannot be written: %s", self.folder.path, broken)

    def close(self) -> None:
        if self.events is not None:
            self.events.close()
            self.events = None

    # -- a state beside the folder ---------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """What a group's checkpoint keeps of the record, as tensors and plain containers."""
        if self.events is not None:
            self.events.flush()
        wall_seconds = self.past_wall_seconds + (time.monotonic() - self.opened) / self.shared
        seconds = {"train_seconds": self.train_seconds, "wall_seconds": wall_seconds, TARGET_SECONDS: self.target_seconds}
        return {**rows_to_content(self.rows), "best": self.best, "verdict": self.verdict, **seconds}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        self.rows = rows_from_content(snapshot)
        self.best = dict(snapshot["best"])
        self.verdict = snapshot["verdict"]
        self.train_seconds, self.past_wall_seconds = snapshot["train_seconds"], snapshot["wall_seconds"]
        self.target_seconds = snapshot[TARGET_SECONDS]

    # -- the log ---------------------------------------------------------------------------------------------------------

    def log(self, message: str, *arguments: object) -> None:
        """A line on the screen and in train.log; of a run that shares its process, in its train.log alone."""
        if self.shared == 1:
            log.info(message, *arguments)
        elif self.writes:
            record = logging.LogRecord(log.name, logging.INFO, __file__, 0, message, arguments, None)
            with self.folder.log_file.open("a") as file:
                file.write(logging.Formatter(LOG_FORMAT).format(record) + "\n")

    def warn(self, message: str) -> None:
        log.warning("warning: %s", message)


def close_interval(
    ledgers: Sequence[Ledger], results: Sequence[IntervalResult], states: Sequence[TrainingState]
) -> list[Verdict]:
    """Close an interval of runs that train in lockstep, or of a single one; says of each how it goes on.

    Whether a run falls behind is asked once all have written theirs, so that it does not depend on their order.
    """
    for ledger, result, state in zip(ledgers, results, states, strict=True):
        ledger.record(result, state)
    return [ledger.settle(state) for ledger, state in zip(ledgers, states, strict=True)]


@contextmanager
def opened(ledgers: Sequence[Ledger]) -> Iterator[None]:
    """Alone at work in the folders, whose runs are running; what ends the block with an error is said in each of them."""
    with ExitStack() as stack:
        for ledger in ledgers:
            stack.enter_context(ledger.folder.locked())
        try:
            for ledger in ledgers:
                if ledger.writes:
                    ledger.begin()
            yield
        except BaseException as error:
            for ledger in ledgers:
                ledger.fail(error)
            raise
        finally:
            for ledger in ledgers:
                ledger.close()
