"""Tests which images are in a batch of Phase II: tail images, donors from confusing classes, head images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fsa.batches import confusing_classes, head_tail_sampler, mean_scores, plain_sampler
from fsa.methods import FSA

COUNTS = np.array([12, 9, 7, 5, 4, 3, 2, 2])
LABELS = torch.repeat_interleave(torch.arange(8), 12)


@pytest.fixture(autouse=True)
def short_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make epochs of 5 iterations."""
    monkeypatch.setattr(FSA, "steps", 5)


def random_scores(seed: int = 0) -> Tensor:
    return torch.rand(8, 8, generator=torch.Generator().manual_seed(seed)).softmax(dim=1)


def test_mean_scores_are_rows_of_true_classes() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]])
    for size in (1, 2, 3):  # batch sizes
        found = mean_scores(probabilities.split(size), torch.tensor([0, 0, 1]), 2)
        torch.testing.assert_close(found, torch.tensor([[0.7, 0.3], [0.2, 0.8]]))


def test_confusion_is_read_from_a_class_own_row() -> None:
    """The matrix is asymmetric: class 3 is taken for class 1, while images of class 0 are taken for class 3."""
    scores = torch.tensor([[0.1, 0.0, 0.0, 0.9], [0.3, 0.6, 0.0, 0.1], [0.2, 0.1, 0.7, 0.0], [0.1, 0.5, 0.2, 0.2]])
    assert confusing_classes(scores, torch.tensor([3]), torch.tensor([0, 1, 2]), 2).tolist() == [[1, 2]]
    assert confusing_classes(scores, torch.tensor([3, 2]), torch.tensor([0, 1]), 3).tolist() == [[1, 0], [0, 1]]
    everyone = confusing_classes(scores, torch.arange(4), torch.arange(4), 3)
    assert not (everyone == torch.arange(4)[:, None]).any() and everyone.shape == (4, 3)
    with pytest.raises(ValueError, match="no other class"):
        confusing_classes(scores, torch.tensor([0]), torch.tensor([0]), 1)


@pytest.mark.parametrize("config", [FSA(), FSA(tail=8, donors=7), FSA(confusing=2), FSA(donor_classes="random")])
def test_a_batch_holds_tail_donors_and_head(config: FSA) -> None:
    """Of 128 images, N_t are from the tail, N_a for each of them from its confusing classes, N_t (1 + N_a) from the
    head.
    """
    indices = torch.cat([torch.arange(12 * c, 12 * c + int(n)) for c, n in enumerate(COUNTS)])
    scores = random_scores()
    order = head_tail_sampler(config, LABELS, COUNTS, scores)(indices, torch.Generator().manual_seed(1))
    assert len(order) == 5 * 128 and config.images == 128 and set(order.tolist()) <= set(indices.tolist())
    head, tail = [0, 1, 2, 3, 4], [5, 6, 7]  # 37 of 44 images are 84 %, with the next 91 %
    head.append(tail.pop(0))
    for batch in order.split(128):
        labels = LABELS[batch]
        own, donors, other = labels.split([config.tail, config.tail * config.donors, 64])
        assert np.isin(own, tail).all() and np.isin(other, head).all() and np.isin(donors, head).all()
        for label, theirs in zip(own.tolist(), donors.view(config.tail, -1).tolist(), strict=True):
            ranked = scores[label, head].argsort(descending=True)[: config.confusing]
            allowed = set(torch.tensor(head)[ranked].tolist())
            if config.donor_classes == "confusing":
                assert set(theirs) <= allowed
            if config == FSA():
                assert set(theirs) == allowed  # one image of each


def test_tail_and_head_draws() -> None:
    """Sampling by images favours larger classes, sampling by classes does not."""
    indices = torch.cat([torch.arange(12 * c, 12 * c + int(n)) for c, n in enumerate(COUNTS)])
    shares = {}
    for by in ("images", "classes"):
        config = FSA(tail=64, donors=0, share=0.6, tail_draw=by, head_draw=by)  # type: ignore[arg-type]
        sampler = head_tail_sampler(config, LABELS, COUNTS, random_scores())
        drawn = torch.cat([sampler(indices, torch.Generator().manual_seed(i)) for i in range(40)]).view(-1, 128)
        found = LABELS[drawn]
        shares[by] = [np.bincount(part.flatten(), minlength=8) / part.numel() for part in found.split(64, dim=1)]
    tail, head = shares["images"]
    np.testing.assert_allclose(tail[3:], COUNTS[3:] / COUNTS[3:].sum(), atol=0.02)
    np.testing.assert_allclose(head[:3], COUNTS[:3] / COUNTS[:3].sum(), atol=0.02)
    np.testing.assert_allclose(shares["classes"][0][3:], 1 / 5, atol=0.02)
    np.testing.assert_allclose(shares["classes"][1][:3], 1 / 3, atol=0.02)


def test_control_batches() -> None:
    indices = torch.cat([torch.arange(12 * c, 12 * c + int(n)) for c, n in enumerate(COUNTS)])
    for kind, shares in (("natural", COUNTS / COUNTS.sum()), ("balanced", np.full(8, 1 / 8))):
        sampler = plain_sampler(FSA(batch=kind), LABELS, 128)  # type: ignore[arg-type]
        drawn = torch.cat([sampler(indices, torch.Generator().manual_seed(i)) for i in range(40)])
        assert len(drawn) == 40 * 5 * 128 and set(drawn.tolist()) <= set(indices.tolist())
        np.testing.assert_allclose(np.bincount(LABELS[drawn], minlength=8) / len(drawn), shares, atol=0.01)


def test_no_tail_is_an_error() -> None:
    with pytest.raises(ValueError, match="no tail"):
        head_tail_sampler(FSA(share=0.99), LABELS, COUNTS, random_scores())
