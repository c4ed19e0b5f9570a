"""What the training of a job costs before it has run: optimizer steps and floating-point operations."""

from typing import NamedTuple

from omegaconf import OmegaConf

from ockham import schema
from ockham.fused.partition import passes_of, repeats_of
from ockham.identity import digest


class Training(NamedTuple):
    """Optimizer steps, and floating-point operations of forward and backward passes, of one run from beginning to end."""

    steps: int
    flops: float


class Operations:
    """The same for jobs of one shape, so each shape is built once."""

    def __init__(self) -> None:
        self._by_shape: dict[str, Training] = {}

    def of(self, content: schema.Content) -> Training:
        from ockham import build
        from ockham.record import cost  # late: torch is no part of planning

        # Of regularizers only this one takes products of matrices of its own.
        projections = content["reg"].get("jacobian", {}).get("projections")
        passes = passes_of(content) * repeats_of(content)
        decisive = {key: content[key] for key in ("data", "model", "trainer", "cv")}
        shape = digest(decisive | {"projections": projections, "passes": passes})
        if shape not in self._by_shape:
            run = build.run(OmegaConf.create(dict(content)))
            per_sample = cost.flops_per_sample(run.model, run.normalize.shape, run.regularizers)
            self._by_shape[shape] = Training(run.total_steps, per_sample * run.num_epochs * len(run.splits.train) * passes)
        return self._by_shape[shape]
