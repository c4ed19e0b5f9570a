"""Matrix products of groups on a CPU through oneDNN.

torch multiplies float32 matrices with MKL, which leaves the wide registers of processors that are not Intel's unused: see
docs/benchmarks.md. oneDNN, which torch carries too, uses them.
"""

import torch
from torch import Tensor

_library = torch.library.Library("ockham", "DEF")
_library.define("product(Tensor a, Tensor b) -> Tensor")


def _product(a: Tensor, b: Tensor) -> Tensor:
    if a.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
    return a @ b.t()


_library.impl("product", _product, "CPU")
_library.impl("product", lambda a, b: a @ b.t(), "CUDA")
_library.impl("product", lambda a, b: a.new_empty(len(a), len(b)), "Meta")


def product(a: Tensor, b: Tensor) -> Tensor:
    """a (n, k) and b (m, k), both contiguous -> a b^T (n, m); without a gradient of its own."""
    return torch.ops.ockham.product(a, b)
