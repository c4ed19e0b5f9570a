"""Classifiers: plain torch modules that map x (N, *shape) to logits (N, num_classes)."""

from ockham.models.cnn import CNN, LeNet
from ockham.models.mlp import MLP, Linear
from ockham.models.resnet import ResNet

__all__ = ["CNN", "MLP", "LeNet", "Linear", "ResNet"]
