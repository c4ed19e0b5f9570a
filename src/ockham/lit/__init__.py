"""One run, framed by Lightning."""

from ockham.lit.metrics_on_demand import defer_metrics

defer_metrics()

from ockham.lit.fit import fit  # noqa: E402

__all__ = ["fit"]
