"""The paper's schedules (Sec. 4 and official code) as data."""

from __future__ import annotations

from common.runs import Schedule

CIFAR = Schedule(epochs=170, lr=0.1, milestones=(110, 130), batch=128, weight_decay=5e-4, warmup=10)
"""Schedule of the representation stage. The official code counts its milestones 100 and 120 from the end of the
warm-up."""
CIFAR_BASE = Schedule(epochs=200, lr=0.1, milestones=(60, 120, 160), batch=128, weight_decay=5e-4)
"""Schedule of the 50 base classes of B50, which are trained without warm-up, head reset and classifier stage."""
CLASSIFIER = Schedule(epochs=30, lr=0.1, milestones=(15,), batch=128, weight_decay=5e-4)
"""Schedule of the classifier stage, which begins with a fresh classifier. So shortened schedules keep its 30 epochs."""
IMAGENET = Schedule(epochs=220, lr=0.1, milestones=(80, 140, 180, 200), batch=256, weight_decay=5e-4, warmup=20)
"""Schedule of ImageNet-100. ImageNet-1000 uses it too, since its own is not released."""
IMAGENET_BASE = Schedule(epochs=200, lr=0.1, milestones=(60, 120, 160), batch=256, weight_decay=5e-4)
"""Schedule of ImageNet-100's 50 base classes. It is a guess, since the official one is not released."""
IMAGENET_CLASSIFIER = Schedule(epochs=30, lr=0.1, milestones=(15,), batch=256, weight_decay=5e-4)


def learning_rates(epochs: int = CIFAR.epochs, recipe: Schedule = CIFAR) -> list[float]:
    """Return the learning rate of every epoch of `recipe`, scaled to `epochs` epochs as --epochs-scale does.

    Raises ValueError on less than one epoch.
    """
    if epochs < 1:
        raise ValueError(f"a schedule has at least one epoch, got {epochs}")
    schedule = recipe.scaled(epochs / recipe.epochs)
    return [schedule.lr_at(epoch) for epoch in range(schedule.epochs)]
