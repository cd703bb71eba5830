"""Tests maps of old features on known moves: the adapter, least squares, shifts and SDC."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from adaptation import rng
from torch import Tensor

from common.samplers import class_sampler
from common.training import shuffled
from feature_adaptation import metrics
from feature_adaptation.adapter import FeatureAdapter, batches, fit_adapter
from feature_adaptation.maps import Pairs, Transform, fit_map, least_squares
from feature_adaptation.methods import Adaptation, Recipe
from feature_adaptation.sdc import compensate, log_weights, mean_shift

CPU = torch.device("cpu")
RECIPE = Recipe(steps=700, lr=1e-3, optimiser="adam")


def clusters(count: int, classes: int, dim: int, name: str, draw: int = 0) -> tuple[Tensor, Tensor]:
    """Return Gaussian classes around random means that `name` chooses: features [count * classes, dim], labels."""
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
    """Eq. 7 / alpha of one batch is computed by hand. A rate of 0 leaves the adapter as it is."""
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
    """With a larger share of L_cls, the head classifies more mapped features correctly, and their cosine is worse."""
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
    """The identity is exact. The MLP is near on current classes, and a little less near on others."""
    assert omega(fitted("identity", NEW, NEW), OLD, OLD) == pytest.approx(1)
    for kind in ("linear", "shift", "sdc", "residual"):
        assert omega(fitted(kind, NEW, NEW), OLD, OLD) > 0.999
    mlp = fitted("mlp", NEW, NEW)
    assert omega(mlp, HELD, HELD) > 0.99
    assert 0.97 < omega(mlp, OLD, OLD) < omega(mlp, HELD, HELD)


def test_a_rotation() -> None:
    """Least squares are exact, the MLP is near, SDC is not."""
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
    """SDC is exact for every sigma and prototype, and so is the mean shift."""
    for sigma in (1e-3, 0.3, 10.0):
        torch.testing.assert_close(compensate(OLD, NEW, NEW + SHIFT, sigma), OLD + SHIFT, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mean_shift(OLD, NEW, NEW + SHIFT), OLD + SHIFT, atol=1e-5, rtol=1e-5)
    assert omega(fitted("shift", NEW, NEW + SHIFT), OLD, OLD + SHIFT) == pytest.approx(1)


def test_sdc_weights() -> None:
    """They equal exponentials in double precision."""
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
