"""Residual networks for small images."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ockham.core.residual import ResidualBranch
from ockham.core.shapes import check_depth, image_shape
from ockham.models.layers import image_norm, initialize


class Block(nn.Module):
    """Two 3 x 3 convolutions with a norm around an identity path; a stride subsamples, new channels are zero."""

    def __init__(self, fan_in: int, fan_out: int, stride: int, *, batch_norm: bool, layer_norm: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(fan_in, fan_out, 3, stride=stride, padding=1, bias=not batch_norm)
        self.norm1 = image_norm(fan_out, batch_norm=batch_norm, layer_norm=layer_norm)
        self.conv2 = nn.Conv2d(fan_out, fan_out, 3, padding=1, bias=not batch_norm)
        self.norm2 = image_norm(fan_out, batch_norm=batch_norm, layer_norm=layer_norm)
        self.branch = ResidualBranch()
        self.stride = stride
        self.new_channels = fan_out - fan_in

    def forward(self, x: Tensor) -> Tensor:
        branch = self.branch(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))
        identity = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))
        return F.relu(branch + identity)


class ResNet(nn.Module):
    """The CIFAR network of He et al. 2016 (Deep Residual Learning, section 4.2) with option A shortcuts. yaml: `model=resnet`.

    `depth` = 6 n + 2 layers: a 3 x 3 convolution, then three stages of n blocks with width, 2 width and 4 width channels, and
    the mean over the image into a dense output layer. Every convolution is followed by batch norm, layer norm or, with neither,
    by nothing. By default weights start as in He et al. 2015 (fan out, normal).
    """

    def __init__(
        self,
        shape: Sequence[int],
        num_classes: int,
        *,
        depth: int = 20,
        width: int = 16,
        batch_norm: bool = True,
        layer_norm: bool = False,
        init: str = "default",
        init_scale: float = 1.0,
    ) -> None:
        super().__init__()
        channels, _, _ = image_shape(shape, "resnet")
        check_depth(depth)
        norms = {"batch_norm": batch_norm, "layer_norm": layer_norm}
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=not batch_norm)
        self.norm = image_norm(width, **norms)
        self.stages = nn.Sequential()
        fan_in = width
        for stage in range(3):
            fan_out = width * 2**stage
            for block in range((depth - 2) // 6):
                self.stages.append(Block(fan_in, fan_out, stride=2 if stage and not block else 1, **norms))
                fan_in = fan_out
        self.output = nn.Linear(fan_in, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        initialize(self, init, init_scale)

    def forward(self, x: Tensor) -> Tensor:
        features = self.stages(F.relu(self.norm(self.stem(x))))
        # A mean, not AdaptiveAvgPool2d: the backward pass of that one is not deterministic on CUDA.
        logits: Tensor = self.output(features.mean(dim=(2, 3)))
        return logits
