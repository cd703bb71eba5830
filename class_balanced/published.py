"""The paper's numbers, and what a setting may be compared with."""

from __future__ import annotations

from pathlib import Path

from class_balanced.methods import ClassBalanced
from class_balanced.presets import Setting
from common.figures import Published

PUBLISHED = Published(Path(__file__).with_name("published.json"))
GRIDS = {"cifar10": "fig8", "cifar20": "fig9", "cifar100": "fig10"}
"""The figure that holds the errors of a data set's grid."""


def printed_name(model: ClassBalanced) -> str:
    """A model as Table 2 and the authors' re-run name it: CB Focal (beta=0.9999, gamma=1.0)."""
    words = [f"beta={model.beta:g}"] if model.beta else []
    words += [f"gamma={model.gamma:.1f}"] if model.loss == "focal" else []
    name = f"CB {model.loss.capitalize()}" if model.beta else model.loss.capitalize()
    return f"{name} ({', '.join(words)})" if words else name


def published_error(setting: Setting, name: str, factor: float) -> tuple[float | None, str]:
    """The paper's error of a row of the grid on the data set that the setting is, or stands for."""
    return PUBLISHED.value(GRIDS.get(setting.role, ""), name, factor)
