"""Feature adaptation's formulas against numbers worked out by hand, known drifts and other ways to compute them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from common.command.estimates import cost
from common.data.datasets import DataSpec
from common.drawing.figures import PublishedFigure
from common.memory import herd
from common.resnet import CifarResNet
from common.runs import Protocol, Run, Schedule
from common.samplers import class_sampler
from common.splits import class_order, phases
from common.store import Result
from common.training import seeded, shuffled
from feature_adaptation import metrics
from feature_adaptation.adapter import FeatureAdapter, batches, fit_adapter
from feature_adaptation.cache import herding_order
from feature_adaptation.losses import (
    attention_distillation,
    distillation,
    one_hot,
    sigmoid_loss,
    similarity_loss,
    softmax_loss,
)
from feature_adaptation.maps import Pairs, Transform, fit_map, least_squares
from feature_adaptation.memory import SIZES, first, megabytes, preserved, ranks
from feature_adaptation.methods import Adaptation, Extractor, Oracle, Recipe
from feature_adaptation.reproduce.parts import average_rows
from feature_adaptation.sdc import compensate, log_weights, mean_shift

CPU = torch.device("cpu")
RECIPE = Recipe(steps=700, lr=1e-3, optimiser="adam")


def rng(*keys: object) -> torch.Generator:
    return seeded(CPU, *keys)


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
    assert first(labels, 1).tolist() == [True, False, False, True, True, False]
    assert first(labels, 0).sum() == 0 and first(labels, None).all()


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


def test_one_target_vector_is_classification_and_distillation() -> None:
    old, logits = torch.randn(5, 3, generator=rng(5)), torch.randn(5, 5, generator=rng(6))
    labels = torch.tensor([3, 4, 0, 1, 4])  # with exemplars of old classes
    targets = torch.cat([old.sigmoid(), one_hot(labels - 3, 2)], dim=1)
    assert one_hot(labels - 3, 2).sum() == 3
    whole = F.binary_cross_entropy_with_logits(logits, targets)
    torch.testing.assert_close(sigmoid_loss(logits, labels, 3, old), whole)
    new = F.binary_cross_entropy_with_logits(logits[:, 3:], targets[:, 3:], reduction="sum") / 25
    kept = F.binary_cross_entropy_with_logits(logits[:, :3], targets[:, :3], reduction="sum") / 25
    torch.testing.assert_close(sigmoid_loss(logits, labels, 3, old, 0.3), new + 0.3 * kept)
    assert torch.equal(sigmoid_loss(logits, labels, 3), sigmoid_loss(logits, labels, 3, old, 0.0))
    torch.testing.assert_close(sigmoid_loss(logits, labels, 3), new)
    whole = F.binary_cross_entropy_with_logits(logits, F.one_hot(labels, 5).float())
    torch.testing.assert_close(sigmoid_loss(logits, labels, 0), whole)


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


# Maps


def clusters(count: int, classes: int, dim: int, name: str, draw: int = 0) -> tuple[Tensor, Tensor]:
    """Gaussian classes around the random means of `name`: features [count * classes, dim], labels."""
    means = 1.5 * torch.randn(classes, dim, generator=rng("means", name))
    noise = torch.randn(classes, count, dim, generator=rng("noise", name, draw))
    return (means[:, None] + noise).reshape(-1, dim), torch.arange(classes).repeat_interleave(count)


DIM = 16
NEW, LABELS = clusters(150, 10, DIM, "new")
HELD, _ = clusters(60, 10, DIM, "new", 1)
OLD, _ = clusters(60, 10, DIM, "old")
ROTATION = torch.linalg.qr(torch.randn(DIM, DIM, generator=rng("rotation")))[0]
SHIFT = torch.randn(DIM, generator=rng("shift"))


def fitted(kind: str, old: Tensor, new: Tensor, **changes: object) -> Transform:
    config = Adaptation(map=kind, alpha=None, adapter=RECIPE, **changes)  # type: ignore[arg-type]
    pairs = Pairs(old, new, LABELS)

    def rows(count: int) -> Iterator[Tensor]:
        return batches(torch.arange(count), shuffled, RECIPE, rng("rows"))

    return fit_map(config, pairs, rows, lambda mapped, labels: mapped.sum(), rng("map"))[0]


def omega(transform: Transform, before: Tensor, after: Tensor) -> float:
    return metrics.adaptation_quality(transform(before), after)


def test_the_adapters_shape_and_size() -> None:
    for layers, parameters in ((1, 132_160), (2, 1_181_760)):
        adapter = FeatureAdapter(64, layers)
        assert sum(p.numel() for p in adapter.parameters()) == parameters
        assert adapter(torch.randn(3, 64)).shape == (3, 64)
    leaves = [type(m).__name__ for m in FeatureAdapter(64).modules() if not list(m.children())]
    assert leaves == ["Linear", "ReLU", "Linear"]  # registered in the order data flow
    v = torch.randn(5, 4, generator=rng("by hand"))
    adapter = FeatureAdapter(4, expansion=2).initialise(rng("by hand"))
    a, b, c, d = adapter.parameters()
    torch.testing.assert_close(adapter(v), (v @ a.T + b).relu() @ c.T + d)
    positive = FeatureAdapter(4, expansion=2, positive=True).initialise(rng("by hand"))
    assert torch.equal(positive(v), adapter(v).relu()) and (positive(v) == 0).any()
    assert sum(p.numel() for p in FeatureAdapter(512).parameters()) == 8_397_312
    x = torch.randn(4, 8)
    assert torch.equal(FeatureAdapter(8, residual=True)(x), x)
    a, b = (FeatureAdapter(8).initialise(rng("same")) for _ in range(2))
    assert torch.equal(a(x), b(x)) and a(x).min() < 0
    with pytest.raises(ValueError, match="at least 1"):
        FeatureAdapter(8, hidden_layers=0)


@pytest.mark.parametrize("alpha", [0.5, 100.0, None])
def test_the_adapters_loss(alpha: float | None) -> None:
    """Eq. 7 / alpha of one batch, by hand; a rate of 0 leaves the adapter as it is."""
    adapter, after = FeatureAdapter(DIM).initialise(rng("loss")), NEW @ ROTATION
    weight = torch.randn(10, DIM, generator=rng("head"))
    recipe, batch = Recipe(steps=1, lr=0.0, optimiser="adam", batch=len(NEW)), torch.arange(len(NEW))

    def classify(mapped: Tensor, rows: Tensor) -> Tensor:
        return F.cross_entropy(mapped @ weight.T, LABELS[rows])

    found = fit_adapter(adapter, NEW, after, iter([batch]), recipe, alpha, classify)
    mapped = adapter(NEW)
    similar = (
        1 - ((mapped / mapped.norm(dim=1, keepdim=True)) * (after / after.norm(dim=1, keepdim=True))).sum(1).mean()
    )
    whole = similar if alpha is None else (alpha * similar + F.cross_entropy(mapped @ weight.T, LABELS)) / alpha
    assert found == pytest.approx(whole.item(), rel=1e-5)


def test_classification_pulls_the_map_towards_the_fixed_head() -> None:
    """With a larger share of L_cls the head calls more mapped features by their class, and the cosine is worse."""
    after, head = NEW @ ROTATION, torch.randn(10, DIM, generator=rng("head"))
    omegas, hits = [], []
    for alpha in (1e4, 0.01):
        config = Adaptation(alpha=alpha, adapter=RECIPE)

        def rows(count: int) -> Iterator[Tensor]:
            return batches(torch.arange(count), shuffled, RECIPE, rng("rows"))

        def classify(mapped: Tensor, labels: Tensor) -> Tensor:
            return F.cross_entropy(mapped @ head.T, labels)

        moved = fit_map(config, Pairs(NEW, after, LABELS), rows, classify, rng("map"))[0](NEW)
        omegas.append(metrics.adaptation_quality(moved, after))
        hits.append(float(((moved @ head.T).argmax(dim=1) == LABELS).float().mean()))
    assert omegas[0] > 0.99 > omegas[1] + 0.2 and hits[1] > 0.95 > hits[0] + 0.2


def test_no_drift() -> None:
    """The identity is exact, the MLP near on current classes and a little less on others."""
    assert omega(fitted("identity", NEW, NEW), OLD, OLD) == pytest.approx(1)
    for kind in ("linear", "shift", "sdc", "residual"):
        assert omega(fitted(kind, NEW, NEW), OLD, OLD) > 0.999
    mlp = fitted("mlp", NEW, NEW)
    assert omega(mlp, HELD, HELD) > 0.99
    assert 0.97 < omega(mlp, OLD, OLD) < omega(mlp, HELD, HELD)


def test_a_rotation() -> None:
    """Least squares exact, the MLP near, SDC not."""
    after = NEW @ ROTATION
    torch.testing.assert_close(fitted("linear", NEW, after)(OLD), OLD @ ROTATION, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(least_squares(NEW, after), ROTATION, atol=1e-5, rtol=1e-4)
    mlp = fitted("mlp", NEW, after)
    assert omega(mlp, HELD, HELD @ ROTATION) > 0.99
    assert omega(mlp, OLD, OLD @ ROTATION) > 0.97
    assert omega(fitted("sdc", NEW, after), OLD, OLD @ ROTATION) < 0.9
    shuffled_pairs = fitted("mlp", NEW, after[torch.randperm(len(after), generator=rng("shuffle"))])
    assert omega(shuffled_pairs, HELD, HELD @ ROTATION) < 0.8  # the price of pairs that do not match


def test_a_shift() -> None:
    """SDC exact for every sigma and prototype, and the mean shift too."""
    for sigma in (1e-3, 0.3, 10.0):
        torch.testing.assert_close(compensate(OLD, NEW, NEW + SHIFT, sigma), OLD + SHIFT, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mean_shift(OLD, NEW, NEW + SHIFT), OLD + SHIFT, atol=1e-5, rtol=1e-5)
    assert omega(fitted("shift", NEW, NEW + SHIFT), OLD, OLD + SHIFT) == pytest.approx(1)


def test_sdc_weights() -> None:
    """Against exponentials in double precision."""
    old, new = F.normalize(NEW, dim=1), F.normalize(NEW @ ROTATION, dim=1)
    stored, sigma = F.normalize(OLD, dim=1), 0.3
    d2 = (stored.double()[:, None] - old.double()[None]).square().sum(dim=2)
    weights = (-d2 / (2 * sigma**2)).exp()
    weights /= weights.sum(dim=1, keepdim=True)
    expected = stored + (weights @ (new - old).double()).float()
    torch.testing.assert_close(compensate(stored, old, new, sigma), expected, atol=1e-5, rtol=1e-4)
    found = log_weights(stored, old, sigma)
    torch.testing.assert_close(found.softmax(dim=1), weights.float(), atol=1e-5, rtol=1e-3)
    torch.testing.assert_close((found + 123.0).softmax(dim=1), found.softmax(dim=1), atol=1e-4, rtol=1e-2)
    torch.testing.assert_close(found.softmax(dim=1).sum(dim=1), torch.ones(len(stored)))
    torch.testing.assert_close(compensate(stored, old, new, 1e4), mean_shift(stored, old, new), atol=1e-5, rtol=1e-4)
    nearest = d2.argmin(dim=1)
    torch.testing.assert_close(compensate(stored, old, new, 1e-4), stored + (new - old)[nearest], atol=1e-5, rtol=1e-4)
    far = torch.full((2, 3), 100.0)  # d^2 / 2 sigma^2 of 1e5
    assert compensate(far, torch.zeros(4, 3), torch.ones(4, 3), 0.3).allclose(far + 1)
    with pytest.raises(ValueError, match="same images"):
        compensate(stored, old, new[:-1])
    with pytest.raises(ValueError, match="positive"):
        compensate(stored, old, new, 0.0)


def test_pairs_keep_their_rows() -> None:
    """Maps without training do not depend on the order of the pairs."""
    order = torch.randperm(len(NEW), generator=rng("order"))
    after = (NEW @ ROTATION).tanh()
    for kind in ("linear", "sdc", "shift"):
        one, other = fitted(kind, NEW, after), fitted(kind, NEW[order], after[order])
        torch.testing.assert_close(one(OLD), other(OLD), atol=1e-4, rtol=1e-4)
    pairs = Pairs(NEW, after, LABELS).at(order)
    torch.testing.assert_close((pairs.old @ ROTATION).tanh(), pairs.new)
    assert torch.equal(pairs.labels, LABELS[order])
    with pytest.raises(ValueError, match="both sides"):
        Pairs(NEW, after[1:], LABELS)


def test_least_squares_leaves_unseen_directions() -> None:
    before, after = NEW.clone(), NEW @ ROTATION
    before[:, -1] = 0  # a feature that is never active
    matrix = least_squares(before, after)
    expected = np.linalg.lstsq(before.double().numpy(), after.double().numpy(), rcond=None)[0]
    torch.testing.assert_close(matrix[:-1], torch.from_numpy(expected[:-1]).float(), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(matrix[-1], torch.eye(DIM)[-1], atol=1e-4, rtol=0)


def test_drawn_classes_are_balanced() -> None:
    labels = torch.tensor([0] * 300 + [1] * 30 + [2] * 3)
    recipe = Recipe(steps=90, lr=0.1, optimiser="sgd", batch=100)
    drawn = torch.cat(list(batches(torch.arange(333), class_sampler(labels, "balanced"), recipe, rng("draw"))))
    shares = torch.bincount(labels[drawn]) / len(drawn)
    assert (shares - 1 / 3).abs().max() < 0.02 and len(drawn.unique()) > 300
    plain = [b for b in batches(torch.arange(333), class_sampler(labels, "uniform"), recipe, rng("draw"))]
    assert len(plain) == 90 and torch.bincount(labels[torch.cat(plain)])[2] < 100


# Metrics


def test_what_the_metrics_say_of_known_maps() -> None:
    own, true = OLD, OLD @ ROTATION
    assert metrics.adaptation_quality(true, true) == pytest.approx(1)
    assert metrics.adaptation_quality(-3 * true, true) == pytest.approx(-1)
    assert metrics.explained(own, own, true) == 0
    assert metrics.explained(true, own, true) == 1
    assert metrics.explained(own + 0.5 * (true - own), own, true) == pytest.approx(0.75)
    assert metrics.explained(own - (true - own), own, true) == pytest.approx(-3)
    assert np.isnan(metrics.explained(own, own, own))
    assert metrics.drift_cosine(true, own, true) == pytest.approx(1)
    assert metrics.drift_cosine(own, own, true) == 0
    labels = torch.tensor([0, 0, 1])
    features = torch.tensor([[0.0, 0], [2, 0], [5, 5]])
    torch.testing.assert_close(metrics.class_means(features, labels), torch.tensor([[1.0, 0], [5, 5]]))
    assert metrics.mean_distances(features, torch.zeros(3, 2), labels) == pytest.approx([1, 50**0.5])


def test_average_incremental_accuracy_of_three_tasks() -> None:
    """(80 + 60 + 40) / 3, and without the first (60 + 40) / 2, of each repeat; here of tasks of 4, 2 and 2 classes."""
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
        (Adaptation(map="magic"), "unknown map"),  # type: ignore[arg-type]
        (Adaptation(map="true"), "unknown map"),  # an oracle's, which a method cannot ask for
        (Oracle(map="mlp"), "unknown map"),
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
