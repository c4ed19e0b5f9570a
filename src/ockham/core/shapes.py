"""What input shapes a model takes. Plain Python, so that the command line can ask before torch is imported."""

from collections.abc import Sequence

from ockham.errors import UserError


def image_shape(shape: Sequence[int], model: str) -> tuple[int, int, int]:
    """(channels, height, width). Raises UserError where the input is flat: a convolution needs an image."""
    if len(shape) != 3:
        raise UserError(
            f"model={model} takes images (channels, height, width), but data.shape={list(shape)} is flat: set model=mlp, or "
            f"data.shape to three numbers"
        )
    channels, height, width = shape
    return channels, height, width


def check_halvings(shape: Sequence[int], channels: Sequence[int]) -> None:
    """Raises UserError where one halving per entry of model.channels leaves nothing of the image (C, H, W)."""
    _, height, width = shape
    if min(height, width) == 1:
        raise UserError(
            f"model=cnn halves images, and those of {height} x {width} have one row: set model=mlp, or model=resnet"
        )
    if min(height, width) >> len(channels) == 0:
        raise UserError(
            f"model.channels={list(channels)} halves the image {len(channels)} times, too often for {height} x {width} "
            f"pixels: use at most {min(height, width).bit_length() - 1} entries"
        )


def check_lenet(shape: Sequence[int]) -> None:
    """Raises UserError where two 5 x 5 convolutions and poolings leave nothing of the image (C, H, W)."""
    _, height, width = shape
    if min(height, width) < 12:
        raise UserError(f"model=lenet needs images of at least 12 x 12 pixels, not {height} x {width}: set model=mlp")


def check_depth(depth: int) -> None:
    """Raises UserError for a number of layers that a residual network cannot have."""
    if depth < 8 or (depth - 2) % 6:
        raise UserError(f"model.depth={depth} must be 6 n + 2: 8, 14, 20, 32, 44, 56 or 110, for example")
