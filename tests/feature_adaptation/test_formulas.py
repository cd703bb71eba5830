"""Tests memory, losses and metrics against their formulas."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from adaptation import rng
from torch import Tensor

from common.command.estimates import cost
from common.data.datasets import DataSpec
from common.drawing.figures import PublishedFigure
from common.memory import herd
from common.resnet import CifarResNet
from common.runs import Protocol, Run, Schedule
from common.splits import class_order, phases
from common.store import Result
from feature_adaptation.cache import herding_order
from feature_adaptation.losses import (
    attention_distillation,
    distillation,
    sigmoid_loss,
    similarity_loss,
    softmax_loss,
)
from feature_adaptation.memory import SIZES, among_first, megabytes, preserved, ranks
from feature_adaptation.methods import Adaptation, Extractor, Recipe
from feature_adaptation.reproduce.parts import average_rows

# Memory


@pytest.mark.parametrize(
    ("features", "images", "expected"),
    [
        (20, 0, 0.512),
        (50, 0, 1.28),
        (100, 0, 2.56),
        (200, 0, 5.12),
        (250, 0, 6.4),
        (500, 0, 12.8),
        (0, 20, 6.144),
        (0, 5, 1.536),
        (0, 10, 3.072),
        (200, 10, 8.192),
    ],
)
def test_the_memory_table_of_cifar(features: int, images: int, expected: float) -> None:
    assert megabytes("cifar100", features, images) == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize(
    ("features", "images", "expected"),
    [
        (20, 0, 4.1),
        (50, 0, 10.2),
        (100, 0, 20.5),
        (200, 0, 41.0),
        (250, 0, 51.2),
        (500, 0, 102.4),
        (0, 20, 393.2),
        (0, 5, 98.3),
        (0, 10, 196.6),
        (200, 10, 237.6),
        (1293.95, 0, 265),
    ],
)
def test_the_memory_table_of_imagenet(features: float, images: int, expected: float) -> None:
    assert megabytes("imagenet100", features, images) == pytest.approx(expected, rel=6e-3)
    if features < 1000:
        assert megabytes("imagenet1000", features, images) == pytest.approx(10 * expected, rel=6e-3)


def test_parity_and_bytes() -> None:
    assert megabytes("cifar100", features_per_class=1) * 1e6 / 100 == 256
    assert megabytes("imagenet100", features_per_class=1) * 1e6 / 100 == 2048
    assert megabytes("cifar100", 240) == pytest.approx(megabytes("cifar100", images_per_class=20))
    assert megabytes("imagenet100", 1920) == pytest.approx(megabytes("imagenet100", images_per_class=20))
    assert megabytes("imagenet100", images_per_class=20, image_bytes=20_000) == pytest.approx(40.0)
    assert megabytes("imagenet100", 3, 2) == preserved(SIZES["imagenet100"], 3, 2)
    jpeg = SIZES["cifar100"].jpeg
    assert megabytes("cifar100", 3, 2, image_bytes=jpeg) == preserved(SIZES["cifar100"], 3, 2, jpeg=True)
    for bad in ({"dataset": "mnist"}, {"features_per_class": -1}, {"image_bytes": -1.0}):
        with pytest.raises(ValueError, match=r"unknown data set|negative"):
            megabytes(**bad)  # type: ignore[arg-type]


def test_classes_arrive_in_the_published_order() -> None:
    parts = phases(class_order(100, 1993), 10, 10)
    assert np.concatenate(parts).tolist()[:10] == [68, 56, 78, 8, 23, 84, 90, 65, 74, 76]
    assert sorted(np.concatenate(parts).tolist()) == list(range(100)) and len(parts) == 10


def test_rows_of_a_class_are_ranked() -> None:
    labels = torch.tensor([0, 0, 0, 1, 2, 2])
    assert ranks(labels).tolist() == [0, 1, 2, 0, 0, 1]
    assert among_first(labels, 1).tolist() == [True, False, False, True, True, False]
    assert among_first(labels, 0).sum() == 0 and among_first(labels, None).all()


def test_herding_keeps_prefixes_and_beats_chance() -> None:
    features, labels = torch.randn(60, 5, generator=rng(0)) + 1, torch.arange(60) % 2
    order = herding_order(features, labels)
    assert sorted(order.tolist()) == list(range(60)) and labels[order].tolist() == [0] * 30 + [1] * 30
    mine = (labels == 1).nonzero().squeeze(1)
    unit = F.normalize(features[mine], dim=1)
    mean = unit.mean(dim=0)
    for count in (1, 4, 9, 30):
        kept = order[30 : 30 + count]
        assert kept.tolist() == mine[herd(features[mine], count)].tolist()
    assert order[30] == mine[(unit @ mean).argmax()] == mine[(unit - mean).norm(dim=1).argmin()]
    error = (unit[herd(features[mine], 8)].mean(dim=0) - mean).norm()
    chance = [(unit[torch.randperm(30, generator=rng(i))[:8]].mean(dim=0) - mean).norm() for i in range(20)]
    assert error < min(chance)
    assert (unit[herd(features[mine], 30)].mean(dim=0) - mean).norm() < 1e-6


# Losses


def test_feature_distillation_sees_directions_only() -> None:
    v = torch.randn(6, 8, generator=rng(1), requires_grad=True)
    assert similarity_loss(v, 3.7 * v).item() == pytest.approx(0, abs=1e-6)
    assert similarity_loss(v, -0.2 * v).item() == pytest.approx(2)
    across = torch.tensor([[1.0, 0], [0, 2]]), torch.tensor([[0.0, 3], [4, 0]])
    assert similarity_loss(*across).item() == pytest.approx(1)
    target = torch.randn(6, 8, generator=rng(2), requires_grad=True)
    (gradient,) = torch.autograd.grad(similarity_loss(v, target), v)
    torch.testing.assert_close((gradient * v).sum(dim=1), torch.zeros(6), atol=1e-7, rtol=0)
    assert gradient.norm() > 0.01
    similarity_loss(v, target).backward()
    assert target.grad is None


def test_distillation_rests_where_nothing_has_changed() -> None:
    old = torch.randn(5, 3, generator=rng(3), requires_grad=True)
    logits = torch.cat([old.detach(), torch.randn(5, 2, generator=rng(4))], dim=1).requires_grad_()
    labels = torch.tensor([3, 4, 3, 3, 4])
    sigmoid_loss(logits, labels, 3, old).backward()
    torch.testing.assert_close(logits.grad[:, :3], torch.zeros(5, 3), atol=1e-8, rtol=0)  # type: ignore[index]
    assert logits.grad[:, 3:].abs().min() > 1e-4 and old.grad is None  # type: ignore[index]
    assert distillation(logits, old).item() == pytest.approx(0, abs=1e-6)
    (gradient,) = torch.autograd.grad(distillation(logits, old), logits)
    assert gradient.abs().max() < 1e-6
    assert distillation(logits, old + 1).item() == pytest.approx(0, abs=1e-6)
    assert distillation(logits, 2 * old) > 0.01


@pytest.mark.parametrize("weight", [1.0, 0.3, 0.0])
def test_one_target_vector_is_classification_and_distillation(weight: float) -> None:
    """iCaRL's targets are computed node by node in float64, for 3 old classes, 2 new ones and 4 that are to come."""
    old, logits = torch.randn(5, 3, generator=rng(5)), torch.randn(5, 9, generator=rng(6), requires_grad=True)
    labels = torch.tensor([3, 4, 0, 1, 4])  # with exemplars of old classes
    before, now = (x.detach().numpy().astype(np.float64) for x in (old, logits))
    total, gradient = 0.0, np.zeros((5, 9))
    for n, k in product(range(5), range(9)):
        distilled = k < 3 and weight > 0
        target = 1 / (1 + np.exp(-before[n, k])) if distilled else float(labels[n] == k)
        p, share = 1 / (1 + np.exp(-now[n, k])), (weight if distilled else 1) / 45
        total -= share * (target * np.log(p) + (1 - target) * np.log(1 - p))
        gradient[n, k] = share * (p - target)
    loss = sigmoid_loss(logits, labels, 3, old, weight)
    loss.backward()
    assert loss.item() == pytest.approx(total, rel=1e-6)
    np.testing.assert_allclose(logits.grad, gradient, rtol=1e-5, atol=1e-8)
    if not weight:
        assert torch.equal(sigmoid_loss(logits, labels, 3), loss)


def test_softmax_variants() -> None:
    logits, old = torch.randn(4, 5, generator=rng(7)), torch.randn(4, 4, generator=rng(8))
    labels = torch.tensor([4, 4, 4, 4])
    assert softmax_loss(logits, labels, 4).item() == 0  # one new class: no push on the old ones
    torch.testing.assert_close(softmax_loss(logits, labels), F.cross_entropy(logits, labels))
    p, q = (old / 2).softmax(1), (logits[:, :4] / 2).softmax(1)
    expected = 4 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(distillation(logits, old), expected)
    parts = [distillation(logits[:, a:b], old[:, a:b]) for a, b in ((0, 1), (1, 4))]
    torch.testing.assert_close(distillation(logits, old, sizes=(1, 3)), sum(parts))


def test_attention_is_grad_cam_and_teaches_the_new_network() -> None:
    net, teacher = (CifarResNet((1,), width=4, stem_stride=2) for _ in range(2))
    images = torch.randn(3, 3, 32, 32, generator=rng(9))
    weight = torch.randn(5, 4, generator=rng(10), requires_grad=True)
    old_weight = torch.randn(3, 4, generator=rng(11))

    def maps(body: CifarResNet) -> Tensor:
        return body.stages(F.relu(body.bn(body.conv(images))))

    new, old = maps(net), maps(teacher)
    attention_distillation(new, old, weight, old_weight).backward()
    assert net.conv.weight.grad.abs().sum() > 1e-3 and weight.grad.abs().sum() > 1e-3  # type: ignore[union-attr]
    assert teacher.conv.weight.grad is None
    assert attention_distillation(old, old, old_weight, old_weight).item() == pytest.approx(0, abs=1e-6)
    leaf = old.detach().requires_grad_()
    scores = leaf.mean(dim=(2, 3)) @ old_weight.T
    best = scores.argmax(dim=1)
    (gradient,) = torch.autograd.grad(scores[torch.arange(3), best].sum(), leaf)
    cam = (gradient.mean(dim=(2, 3), keepdim=True) * leaf).sum(dim=1).relu().flatten(1)  # Selvaraju et al., Eq. 1, 2
    flat = torch.ones(3, 4, *old.shape[2:])
    distance = F.normalize(cam, dim=1) - F.normalize((flat * weight[best, :, None, None]).sum(1).relu().flatten(1))
    found = attention_distillation(flat, old, weight, old_weight)
    torch.testing.assert_close(found, distance.abs().sum(dim=1).mean(), atol=1e-5, rtol=1e-4)


# Metrics


def test_average_incremental_accuracy_of_three_tasks() -> None:
    """For tasks of 4, 2 and 2 classes, it is (80 + 60 + 40) / 3, and without the first (60 + 40) / 2, per repeat."""
    repeats = []
    for shift in (-1.0, 1.0):
        values = [{"accuracy": a + shift, "groups": [a] * (i + 1)} for i, a in enumerate((80.0, 60.0, 40.0))]
        phases = [{"classes": c, "stages": {"main": {"cnn": v}}} for c, v in zip((4, 6, 8), values, strict=True)]
        repeats.append(Result("0" * 16, {}, {}, {"phases": phases}))
    whole, rest = average_rows("FA", repeats, "cnn", PublishedFigure({}, ""))[:2]
    assert whole.ours and rest.ours and (whole.ours.mean, rest.ours.mean) == (60, 50)
    assert whole.ours.n == 2 and whole.ours.std == pytest.approx(2**0.5)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Adaptation(features_per_class=-1), "at least 0"),
        (Adaptation(features_per_class=0), "leave nothing"),
        (Adaptation(exemplar_pairs=True), "needs images"),
        (Extractor(holdout=1.0), "share"),
        (Extractor(attention=1.0, frozen=True), "frozen"),
    ],
)
def test_what_cannot_be_asked_for(method: Adaptation | Extractor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method.check(Protocol(20, 4, 4, exemplars_per_class=0))


def test_costs_count_steps() -> None:
    protocol = Protocol(20, 4, 4, exemplars_per_class=0)
    for kind, steps in product(("mlp", "identity"), (100, 200)):
        recipe = Recipe(steps, 0.1, "sgd", batch=50)
        method = Adaptation(map=kind, adapter=recipe, classifier=recipe)  # type: ignore[arg-type]
        run = Run("feature_adaptation", method, DataSpec("cifar100"), protocol, Schedule(7), "resnet32")
        assert cost(run, None) == (4 * (kind == "mlp") + 5) * steps * 50 // 100
