"""The Lightning module: one optimizer step, readable, and what is measured after an interval."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import LBFGS, Optimizer

from ockham.core.metrics import logits_of, scores
from ockham.core.objective import LOSSES
from ockham.core.parameters import holding, named_parameters
from ockham.data import Splits
from ockham.data.inputs import Inputs
from ockham.optim.external import draws, needs_graph
from ockham.optim.responses import Responses, averaged_weights
from ockham.record.checkpoint import Checkpoint
from ockham.record.folder import EPOCH_SCALARS, gaps
from ockham.record.measure import Measurements, weight_scalars
from ockham.reg.averages import has_batch_norm, recomputed_statistics
from ockham.reg.single import (
    activations_of,
    add_penalty_gradients,
    average,
    batch_penalties,
    before_step,
    decay,
    disturb_gradients,
    disturbed_input,
    has_jacobian_penalty,
    initial_averages,
    jacobian_penalties,
    mixed_states,
    mixtures_of,
    perturbed,
    prox_and_project,
    targets,
    transform_gradients,
    weight_penalties,
)
from ockham.run import Run


class Classifier(pl.LightningModule):
    """Trains `run.model`, from the checkpoint's step on where one is given. What Lightning calls an epoch is an interval.

    Per step: augment, regularize the batch, forward, loss and penalties, backward, optimizer step, projection.
    """

    def __init__(self, run: Run, checkpoint: Checkpoint | None = None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.run = run
        self.checkpoint = checkpoint
        self.model = run.model
        self.finished_steps = checkpoint.step if checkpoint else 0
        self.worked_samples = checkpoint.samples if checkpoint else 0
        self.history = [run.criterion(row.scalars) for row in checkpoint.rows] if checkpoint else []
        self.steps_per_training = run.steps_per_training
        self.parameters_by_name = named_parameters(self.model)

    def configure_optimizers(self) -> Optimizer:
        optimizer = self.run.make_optimizer(self.model)
        self.base_lrs = [group["lr"] for group in optimizer.param_groups]
        group_of = {id(p): index for index, group in enumerate(optimizer.param_groups) for p in group["params"]}
        self.group_by_name = {name: group_of[id(parameter)] for name, parameter in self.parameters_by_name}
        return optimizer

    def on_train_start(self) -> None:
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, Optimizer)
        self.optimizer = optimizer
        self.create_graph = needs_graph(optimizer)
        self.responses = Responses(optimizer, self.parameters_by_name)
        dtype = self.parameters_by_name[0][1].dtype
        self.run.normalize.for_model(dtype, self.run.memory_format, self.device)
        self.measurements = Measurements(self.run)
        self.averages_by_name = initial_averages(self.run.regularizers, self.parameters_by_name)
        if self.checkpoint is not None:
            assert self.checkpoint.optimizer is not None, "best.ckpt is not continued from"
            self.model.load_state_dict(self.checkpoint.model)
            self.optimizer.load_state_dict(self.checkpoint.optimizer)
            if self.checkpoint.streams is not None:
                self.run.streams.move_to(self.finished_epochs, self.checkpoint.streams)
            for name, value in self.averages_by_name.items():
                value.copy_(self.checkpoint.averages[name])
            with holding(self.parameters_by_name, self.parameter_averages()):
                self.measurements.begin()
        self.take_inputs(self.run.splits.to(self.device))
        self.objective_sum = torch.zeros((), dtype=torch.float64, device=self.device)

    def take_inputs(self, splits: Splits) -> None:
        normalize = self.run.normalize
        self.train_inputs, self.val_inputs = Inputs(splits.train, normalize), Inputs(splits.val, normalize)
        probe = self.run.probe(splits)
        self.probe_inputs = self.train_inputs if len(probe) == len(splits.train) else Inputs(probe, normalize)

    @property
    def finished_epochs(self) -> int:
        """Whole ones."""
        return self.finished_steps // self.run.steps_per_epoch

    def on_train_epoch_start(self) -> None:
        self.objective_sum.zero_()
        self.interval_samples = 0
        self.costs = self.run.seen_by_schedule(self.history)

    def training_step(self, chunk: Tensor, chunk_index: int) -> None:
        for batch in chunk.split(self.run.step_size):
            self.step(batch)

    def step(self, batch: Tensor) -> None:
        """One optimizer step on the training samples with the indices `batch` (n,)."""
        if self.finished_steps % self.run.steps_per_epoch == 0:
            self.run.streams.begin(self.finished_epochs)
        self.begin_step()
        lrs = self.set_learning_rates()
        if isinstance(self.optimizer, LBFGS):
            self.decay(lrs)
            objective = self.optimizer.step(lambda: self.backward_again(batch))
        else:
            objective = self.gradient(batch)
            self.decay(lrs)
            with self.drawing():
                self.optimizer.step()
        with torch.no_grad():
            prox_and_project(self.run.regularizers, self.parameters_by_name, self.responses)
            average(self.run.regularizers, self.parameters_by_name, self.averages_by_name, step=self.finished_steps + 1)
        self.objective_sum += objective.detach() * len(batch)
        self.interval_samples += len(batch)
        self.finished_steps += 1

    def begin_step(self) -> None:
        """Let regularizers change the model between two steps; with another training the optimizer is as it was at first."""
        training, step = divmod(self.finished_steps, self.steps_per_training)
        before_step(self.run.regularizers, self.model, training=training, step=step)
        if training > 0 and step == 0:
            self.optimizer.load_state_dict(self.run.make_optimizer(self.model).state_dict())

    def set_learning_rates(self) -> Mapping[str, float]:
        """Put the scheduled learning rates into the optimizer's groups; returns them by parameter name."""
        steps = self.steps_per_training
        factor = self.run.schedule(self.finished_steps % steps, steps, self.costs)
        self.lrs = [base * factor for base in self.base_lrs]
        for group, lr in zip(self.optimizer.param_groups, self.lrs, strict=True):
            group["lr"] = lr
        return {name: self.lrs[index] for name, index in self.group_by_name.items()}

    @torch.no_grad()
    def decay(self, lrs: Mapping[str, float]) -> None:
        decay(self.run.regularizers, self.parameters_by_name, lrs)

    def drawing(self) -> AbstractContextManager[None]:
        """What a step of somebody else's optimizer draws follows from the seed and the number of the step."""
        purpose = f"optimizer/{self.finished_steps}"
        return self.run.streams.global_seed(purpose) if draws(self.optimizer) else nullcontext()

    def backward_again(self, batch: Tensor) -> Tensor:
        """The closure of L-BFGS: its line search compares values, so every call draws the same noise."""
        self.run.streams.begin(self.finished_epochs)
        return self.forward_backward(batch)

    def gradient(self, batch: Tensor) -> Tensor:
        """Leave the gradient that the optimizer takes in the parameters; returns the objective on `batch` (n,), a scalar."""
        run, parameters = self.run, self.parameters_by_name
        objective = self.perturbed_gradient(batch) if run.passes > 1 else self.forward_backward(batch)
        with torch.no_grad():
            transform_gradients(run.regularizers, parameters)
            if run.settings.clipping is not None:
                run.settings.clipping.apply(parameter for _, parameter in parameters)
            disturb_gradients(run.regularizers, parameters, run.streams, step=self.finished_steps + 1)
        return objective

    def perturbed_gradient(self, batch: Tensor) -> Tensor:
        """Leave the gradient of the loss where a regularizer moves the parameters, and that of the penalties where they are.

        Both passes draw the same noise, and buffers are left by the first; returns the objective of that one.
        """
        regularizers, parameters, streams = self.run.regularizers, self.parameters_by_name, self.run.streams
        start = streams.positions()
        objective = self.forward_backward(batch, with_parameter_penalties=False)
        streams.move_to(self.finished_epochs, start)
        buffers = list(self.model.named_buffers())
        with holding([*parameters, *buffers], {**perturbed(regularizers, parameters), **dict(buffers)}):
            self.forward_backward(batch, with_parameter_penalties=False)
        return objective + add_penalty_gradients(regularizers, parameters)

    def forward_backward(self, batch: Tensor, *, with_parameter_penalties: bool = True) -> Tensor:
        """Leave the gradient of the objective on `batch` (n,) in the parameters; returns the objective, a scalar.

        With several devices each takes its share of the samples; the backward pass averages gradients over devices, so
        that a share counts world-size times.
        """
        settings = self.run.settings
        self.worked_samples += len(batch) * self.run.repeats
        self.optimizer.zero_grad()
        total = torch.zeros((), device=self.device)
        for position, part in enumerate(shares(batch, settings.batch_size, devices=settings.devices, rank=self.global_rank)):
            # A share without samples takes part in the backward pass with weight zero: devices wait for each other.
            weight = settings.devices / len(batch) if len(part) else 0.0
            objective = self.objective(
                part if len(part) else batch[:1],
                weight,
                with_parameter_penalties=with_parameter_penalties and position == 0,
            )
            if settings.devices > 1:
                self.manual_backward(objective)  # tells Lightning's strategy that gradients are to be averaged
            else:
                backward(objective, [parameter for _, parameter in self.parameters_by_name], create_graph=self.create_graph)
            total = total + objective.detach()
        return total

    def objective(self, part: Tensor, weight: float, *, with_parameter_penalties: bool) -> Tensor:
        """`weight` times the summed loss of the samples `part`, plus the penalties that are in the loss."""
        run = self.run
        x, y = run.training_batch(*self.train_inputs.batch(part))
        x = disturbed_input(run.regularizers, x, run.streams)
        mixtures = mixtures_of(run.regularizers, self.model, x, run.streams)
        if has_jacobian_penalty(run.regularizers):
            x = x.detach().requires_grad_()
        y = targets(run.regularizers, y, len(run.splits.classes), x.dtype, mixtures)
        with activations_of(self.model, run.regularizers) as activations, mixed_states(self.model, mixtures):
            logits = self.model(x)
        loss = LOSSES[run.settings.loss](logits, y, weight=weight / run.repeats)
        penalties = batch_penalties(run.regularizers, logits, activations)
        penalties += jacobian_penalties(run.regularizers, logits, x, run.streams)
        for penalty in penalties:
            loss = loss + penalty * (weight * len(part))
        for penalty in weight_penalties(run.regularizers, self.parameters_by_name) if with_parameter_penalties else []:
            loss = loss + penalty
        return loss

    def finish_interval(self) -> dict[str, float]:
        """Measure the weights that are judged after the interval, on every rank alike; returns the scalars of metrics.csv."""
        mean_objective = self.trainer.strategy.reduce(self.objective_sum / self.interval_samples, reduce_op="mean")
        scalars: dict[str, float] = {}
        self.judged = self.averages_and_their_statistics()
        with holding([*self.parameters_by_name, *self.model.named_buffers()], self.judged):
            for name, inputs in (("train", self.probe_inputs), ("val", self.val_inputs)):
                logits = logits_of(self.model, inputs.images, inputs.prepare)
                loss, acc = scores(logits, inputs.labels, loss=self.run.settings.loss)
                scalars |= {f"{name}/loss": loss, f"{name}/acc": acc}
            probe = self.probe_inputs
            scalars |= gaps(scalars)
            scalars |= {
                "train/objective": float(mean_objective),
                **weight_scalars(self.run.regularizers, self.model, probe.images, probe.prepare),
                "lr": self.lrs[0],
            }
            scalars |= self.measurements.scalars(
                step=self.finished_steps,
                images=probe.images,
                labels=probe.labels,
                prepare=probe.prepare,
                val_logits=logits,
                val_labels=self.val_inputs.labels,
            )
        # Ranks differ in the statistics of batch norm; all must decide alike.
        scalars = self.trainer.strategy.broadcast(scalars)
        self.history.append(self.run.criterion(scalars))
        assert tuple(scalars) == (*EPOCH_SCALARS, *self.measurements.columns)
        self.scalars = scalars
        return scalars

    def weights(self) -> Mapping[str, Tensor]:
        return self.model.state_dict()

    def parameter_averages(self) -> dict[str, Tensor]:
        """What the model is judged with in place of its parameters, by name."""
        return averaged_weights(self.optimizer, self.parameters_by_name) | self.averages_by_name

    def averages_and_their_statistics(self) -> dict[str, Tensor]:
        """`parameter_averages`, and the statistics of batch norm that belong to them."""
        averages = self.parameter_averages()
        if not averages or not has_batch_norm(self.model):
            return averages
        samples = torch.arange(len(self.run.splits.train), device=self.device)
        batches = (self.train_inputs.batch(part)[0] for part in samples.split(self.run.settings.batch_size))
        return averages | recomputed_statistics(self.model, averages, batches)

    def averaged_weights(self) -> Mapping[str, Tensor]:
        return self.judged

    def averages(self) -> Mapping[str, Tensor]:
        return self.averages_by_name

    def optimizer_state(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        raise AssertionError("Lightning writes no checkpoints here: the ledger does")


def backward(objective: Tensor, parameters: Sequence[Tensor], *, create_graph: bool) -> None:
    """Add to the gradients of the parameters, which can be differentiated again with `create_graph`; to that of no input."""
    with warnings.catch_warnings():
        # Of a cycle from parameters to gradients and back, which `zero_grad` breaks before the next step.
        warnings.filterwarnings("ignore", message="Using backward.. with create_graph=True")
        objective.backward(create_graph=create_graph, inputs=parameters)


def shares(batch: Tensor, size: int, *, devices: int, rank: int) -> list[Tensor]:
    """What the device `rank` works on of a batch (n,), in parts of up to `size` samples.

    All devices have equally many parts, some of which may be empty: each part is a backward pass that all take part in.
    """
    largest = -(-len(batch) // devices)
    share = batch[rank::devices]
    return [share[begin : begin + size] for begin in range(0, largest, size)]
