"""Orthogonal factors of matrices by Newton-Schulz iteration, as Muon takes them."""

from functools import cache

import torch
from torch import Tensor

#: Jordan et al. 2024, Muon: An optimizer for hidden layers in neural networks. Chosen for the slope at 0: singular values
#: come near 1 in few iterations, and stay within about 0.3 of it.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
EPS = 1e-7


def orthogonalized(matrices: Tensor) -> Tensor:
    """About U V^T for each matrix U S V^T of (..., rows, columns), in the dtype of the matrices.

    Five times X <- a X + b (X X^T) X + c (X X^T)^2 X from the matrix over its norm: the same as a x + b x^3 + c x^5 on its
    singular values.
    """
    a, b, c = COEFFICIENTS
    norms = torch.linalg.matrix_norm(matrices, keepdim=True).clamp(min=EPS)
    units = has_bfloat16_units(matrices.device.type)
    x = (matrices / norms).to(iteration_dtype(matrices.dtype, bfloat16_units=units))
    is_tall = x.shape[-2] > x.shape[-1]  # the smaller of both products X X^T and X^T X
    x = x.mT if is_tall else x
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return (x.mT if is_tall else x).to(matrices.dtype)


def iteration_dtype(dtype: torch.dtype, *, bfloat16_units: bool) -> torch.dtype:
    """bfloat16 where the hardware multiplies it faster than float32, which is enough for Muon, and nowhere else.

    Emulated, a product in bfloat16 takes many times as long as in float32. Double precision stays.
    """
    return torch.bfloat16 if bfloat16_units and dtype == torch.float32 else dtype


@cache
def has_bfloat16_units(device_type: str) -> bool:
    """Whether devices of that type have instructions for products of bfloat16 matrices."""
    if device_type == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # older torch does not tell
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
