"""Small convolutional networks."""

from collections.abc import Sequence

from torch import Tensor, nn

from ockham.core.shapes import check_halvings, check_lenet, image_shape
from ockham.errors import UserError
from ockham.models.layers import activation_of, image_norm, initialize

POOLINGS: dict[str, type[nn.Module]] = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}


class CNN(nn.Module):
    """Blocks of 3 x 3 convolution, optional norm, activation and 2 x 2 pooling, then a dense head. yaml: `model=cnn`.

    Block i has channels[i] output channels and halves height and width; the head is one hidden layer of `dense` units,
    or none where dense is 0.
    """

    def __init__(
        self,
        shape: Sequence[int],
        num_classes: int,
        *,
        channels: Sequence[int],
        dense: int,
        activation: str = "relu",
        batch_norm: bool = True,
        layer_norm: bool = False,
        pooling: str = "max",
        init: str = "default",
        init_scale: float = 1.0,
    ) -> None:
        super().__init__()
        fan_in, height, width = image_shape(shape, "cnn")
        if pooling not in POOLINGS:
            raise UserError(f"model.pooling={pooling} is not known: choose one of {', '.join(POOLINGS)}")
        check_halvings(shape, channels)
        self.blocks = nn.Sequential()
        for fan_out in channels:
            block = nn.Sequential()
            block.add_module("conv", nn.Conv2d(fan_in, fan_out, 3, padding=1, bias=not batch_norm))
            block.add_module("norm", image_norm(fan_out, batch_norm=batch_norm, layer_norm=layer_norm))
            block.add_module("activation", activation_of(activation))
            block.add_module("pooling", POOLINGS[pooling](2))
            self.blocks.append(block)
            fan_in, height, width = fan_out, height // 2, width // 2
        features = fan_in * height * width
        self.head = nn.Sequential()
        if dense:
            self.head.add_module("linear", nn.Linear(features, dense))
            self.head.add_module("activation", activation_of(activation))
        self.output = nn.Linear(dense or features, num_classes)
        initialize(self, init, init_scale)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.output(self.head(self.blocks(x).flatten(1)))
        return logits


class LeNet(nn.Module):
    """LeNet-5 with max pooling (after LeCun et al. 1998, Gradient-Based Learning). yaml: `model=lenet`.

    Two 5 x 5 convolutions of 6 and 16 channels, dense layers of 120 and 84. The first convolution is padded so that 28 x 28
    images give the paper's sizes; the paper's partial connection table and radial basis output are left out.
    """

    def __init__(
        self,
        shape: Sequence[int],
        num_classes: int,
        *,
        activation: str = "tanh",
        init: str = "default",
        init_scale: float = 1.0,
    ) -> None:
        super().__init__()
        channels, height, width = image_shape(shape, "lenet")
        final_height, final_width = ((side // 2 - 4) // 2 for side in (height, width))
        check_lenet(shape)
        self.features = nn.Sequential(
            nn.Conv2d(channels, 6, 5, padding=2),
            activation_of(activation),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            activation_of(activation),
            nn.MaxPool2d(2),
        )
        self.head = nn.Sequential(
            nn.Linear(16 * final_height * final_width, 120),
            activation_of(activation),
            nn.Linear(120, 84),
            activation_of(activation),
        )
        self.output = nn.Linear(84, num_classes)
        initialize(self, init, init_scale)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.output(self.head(self.features(x).flatten(1)))
        return logits
