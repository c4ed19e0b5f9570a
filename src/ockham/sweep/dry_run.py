"""What a dry run prints of the jobs: where they lie, and what they will cost."""

from collections.abc import Sequence

from omegaconf import OmegaConf

from ockham.fused.partition import passes_of, repeats_of
from ockham.identity import digest
from ockham.sweep.folder import SweepFolder
from ockham.sweep.jobs import Job, Plan


def dry_run(plan: Plan, folder: SweepFolder) -> str:
    """The jobs that are known before any has run, their folders, whether they are finished already, and their cost."""
    jobs = plan.foreseen()
    lines = [f"  #{job.number:<4} {folder.state(job) or 'waiting':<9} {' '.join(job.overrides)}" for job in jobs]
    if jobs:
        cost = estimate(jobs)
    else:
        cost = f"  {plan.total} jobs of a search, which chooses them as results come in; swept: {', '.join(plan.swept)}"
    return "\n".join([*lines, f"  folders: {folder.path}/<number>", cost])


def estimate(jobs: Sequence[Job]) -> str:
    """Optimizer steps and floating-point operations of all jobs."""
    from ockham import build
    from ockham.record import cost  # late: torch is no part of planning

    by_shape: dict[str, tuple[int, float]] = {}
    steps, flops = 0, 0.0
    for job in jobs:
        # Of regularizers only this one takes products of matrices of its own.
        projections = job.content["reg"].get("jacobian", {}).get("projections")
        passes = passes_of(job.content) * repeats_of(job.content)
        decisive = {key: job.content[key] for key in ("data", "model", "trainer", "cv")}
        shape = digest(decisive | {"projections": projections, "passes": passes})
        if shape not in by_shape:
            run = build.run(OmegaConf.create(dict(job.content)))
            per_sample = cost.flops_per_sample(run.model, run.normalize.shape, run.regularizers)
            by_shape[shape] = (run.total_steps, per_sample * run.num_epochs * len(run.splits.train) * passes)
        steps, flops = steps + by_shape[shape][0], flops + by_shape[shape][1]
    return f"  {steps:,} optimizer steps, {flops:.3g} floating-point operations in training"
