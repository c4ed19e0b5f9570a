"""Lightning without the metrics that no run here computes.

Lightning compares what is logged with two classes of torchmetrics. For them the package's __init__ imports every metric there
is, and with those SciPy's signal processing and torchvision: a third of Lightning's import. So the package is put in place with
what Lightning asks of it, and its __init__ runs when something else is asked for: `from torchmetrics import Accuracy` works as
ever, and waits then. importlib's LazyLoader would not do: it runs the __init__ at the first name asked for, Lightning's.
"""

import logging
import sys
import threading
from importlib.abc import Loader
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

PACKAGE = "torchmetrics"


class _InitOnDemand:
    """A package's __getattr__: runs its __init__ once, when a name is asked for that it does not have yet."""

    def __init__(self, module: ModuleType, loader: Loader) -> None:
        self.module, self.loader = module, loader
        self.has_begun = False
        self.lock = threading.RLock()  # another thread waits; the __init__ itself may ask for what is not there yet

    def __call__(self, name: str) -> Any:
        with self.lock:
            if not self.has_begun:
                self.has_begun = True
                self.loader.exec_module(self.module)
        if name not in vars(self.module):
            raise AttributeError(f"module {PACKAGE!r} has no attribute {name!r}")
        return vars(self.module)[name]


def defer_metrics() -> None:
    """Put torchmetrics in place without its metrics, before Lightning is imported. Where it is there already, it stays."""
    spec = find_spec(PACKAGE) if PACKAGE not in sys.modules else None
    if spec is None or spec.loader is None:
        return
    module = module_from_spec(spec)
    module._logger = logging.getLogger(PACKAGE)  # type: ignore[attr-defined] # which its submodules import
    module.__getattr__ = _InitOnDemand(module, spec.loader)  # type: ignore[method-assign]
    sys.modules[PACKAGE] = module
    try:
        import torchmetrics.utilities  # noqa: F401  # first: it and the classes import each other
        from torchmetrics.__about__ import __version__
        from torchmetrics.collections import MetricCollection
        from torchmetrics.metric import Metric
    except (ImportError, AttributeError):  # another version may be put together differently: Lightning imports it as it is
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]
    else:
        vars(module).update(__version__=__version__, Metric=Metric, MetricCollection=MetricCollection)
