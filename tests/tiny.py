"""Defines networks that are as quick as networks can be."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TinyNet(nn.Module):
    """Two convolutions with BatchNorm: [n, 3, h, w] -> [n, 8], as quick as a network can be."""

    def __init__(self, final_relu: bool = True) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 5, 4, 2, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.final_relu, self.out_features = final_relu, 8

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return (F.relu(x) if self.final_relu else x).mean(dim=(2, 3))


class TinyMaps(TinyNet):
    """The tiny network, with a function for its last feature map [n, 8, 4, 4]."""

    def maps(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))
