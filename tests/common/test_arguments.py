"""Functions that a user may call from Python refuse what would give a wrong number or NaN without a word."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from bbn import alpha
from common.memory import herd
from common.metrics import confusion_matrix
from feature_adaptation import adaptation_quality, compensate
from feature_adaptation.losses import distillation as task_distillation
from fsa import class_activation_map
from lucir import adaptive_weight, distillation, imprint, less_forget, margin_ranking

ROWS = torch.arange(12.0).view(4, 3)
LABELS = torch.tensor([0, 1, 2, 0])
NAN = torch.full((4, 3), math.nan)


@pytest.mark.parametrize(
    "call",
    [
        lambda: distillation(ROWS, ROWS[:, :2], 0.0),
        lambda: distillation(ROWS, ROWS[:, :2], -2.0),
        lambda: task_distillation(ROWS, ROWS[:, :2], math.nan),
        lambda: less_forget(ROWS, ROWS[:1]),
        lambda: adaptive_weight(5.0, 50, 0),
        lambda: adaptive_weight(5.0, 0, 10, "paper"),
        lambda: margin_ranking(ROWS, LABELS, 1, k=0),
        lambda: margin_ranking(ROWS, LABELS, -1),
        lambda: margin_ranking(ROWS, LABELS, 1, reduction="none"),  # type: ignore[arg-type]
        lambda: imprint([], ROWS),
        lambda: imprint([ROWS, ROWS[:0]], ROWS),
        lambda: imprint([ROWS], ROWS[:0]),
        lambda: adaptation_quality(ROWS, ROWS[:1]),
        lambda: compensate(ROWS, ROWS, ROWS, math.nan),
        lambda: alpha(3, 10, stretch=math.nan),
        lambda: confusion_matrix(np.array([0, 1]), np.array([0]), 2),
        lambda: herd(NAN, 2),
    ],
)
def test_what_has_no_value_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError) as caught:
        call()
    assert "\n" not in str(caught.value) and len(str(caught.value)) > 20


@pytest.mark.parametrize("wrong", [-1, 3])
def test_a_map_of_no_class_is_refused(wrong: int) -> None:
    maps = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    with pytest.raises((IndexError, RuntimeError)):
        class_activation_map(maps, ROWS[:3], torch.tensor([0, 1, wrong, 2]))


def test_labels_of_any_integer_type_name_the_same_maps() -> None:
    maps = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    wanted = class_activation_map(maps, ROWS[:4], LABELS)
    for kind in (torch.uint8, torch.int16, torch.int32):
        assert torch.equal(class_activation_map(maps, ROWS[:4], LABELS.to(kind)), wanted)
