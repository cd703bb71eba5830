"""Provides the conventional training loop of most public code. throughput.py and parity.py compare with it.

Pillow images pass through RandomCrop, RandomHorizontalFlip, ToTensor and Normalize in DataLoader workers. Training uses
fp32 and NCHW, and reads the loss with `.item()` at every step.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from common.heads import LinearHead
from common.resnet import backbone
from common.runs import Inputs, Schedule


class PilImages(Dataset):
    """A data set of uint8 images [n, 32, 32, 3] and labels [n] that augments one Pillow image at a time."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, inputs: Inputs) -> None:
        self.images, self.labels = images, labels
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(inputs.mean, inputs.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


class Conventional:
    """Holds a network with a linear head, its optimiser and its data loader. `epoch` trains once over the images."""

    def __init__(
        self,
        network: str,
        images: np.ndarray,
        labels: np.ndarray,
        classes: int,
        schedule: Schedule,
        device: torch.device,
        workers: int,
        seed: int = 0,
        inputs: Inputs = Inputs(),  # noqa: B008 - frozen
    ) -> None:
        torch.manual_seed(seed)
        body = backbone(network, seed=seed)
        self.net = nn.Sequential(body, LinearHead(body.out_features, classes)).to(device)  # type: ignore[arg-type]
        self.schedule, self.device = schedule, device
        self.loader = DataLoader(
            PilImages(images, labels, inputs),
            batch_size=schedule.batch,
            shuffle=True,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
        )
        self.optimiser = torch.optim.SGD(
            self.net.parameters(), schedule.lr, momentum=schedule.momentum, weight_decay=schedule.weight_decay
        )

    def epoch(self, number: int = 0) -> float:
        """Train on every image once, at the learning rate of epoch `number`. Returns the mean loss."""
        self.net.train()
        for group in self.optimiser.param_groups:
            group["lr"] = self.schedule.lr_at(number)
        total = 0.0
        for images, labels in self.loader:
            images = images.to(self.device, non_blocking=True)
            labels = labels.to(self.device, non_blocking=True)
            loss = F.cross_entropy(self.net(images), labels)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            total += loss.item() * len(labels)
        return total / len(self.loader.dataset)  # type: ignore[arg-type]
