"""What models and regularizers know of residual blocks."""

from torch import nn


class ResidualBranch(nn.Identity):
    """What a residual block adds to its input passes through here, so that it can be found; a child of the block."""
