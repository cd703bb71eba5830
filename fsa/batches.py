"""Chooses the images of each batch of Phase II (Algorithm 1; Sec. 4.3 for the whole batch)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from common.heads import Net, extract
from common.incremental import Context
from fsa.methods import FSA
from fsa.splits import head_and_tail

Sampler = Callable[[Tensor, torch.Generator], Tensor]


def mean_scores(probabilities: Iterable[Tensor], labels: Tensor, classes: int) -> Tensor:
    """Return the mean softmax score of every class (column) over the images of each true class (row); fp32 [c, c].

    probabilities: softmax outputs [m, c], batch by batch, since those of 8,142 classes would not fit into memory at
    once. labels [n]: of all images. Every class needs an image.
    """
    sums, start = torch.zeros(classes, classes, device=labels.device), 0
    for batch in probabilities:
        sums.index_add_(0, labels[start : start + len(batch)], batch.float())
        start += len(batch)
    return sums / torch.bincount(labels, minlength=classes).unsqueeze(1)


@torch.no_grad()
def class_scores(net: Net, context: Context, indices: Tensor) -> Tensor:
    """Return the `mean_scores` of a network on un-augmented training images, in eval mode (Sec. 4.2)."""
    classes = net.head.weight.shape[0]
    batches = extract(net, context.train, indices).split(2**26 // classes)
    return mean_scores((net.head(batch).softmax(dim=1) for batch in batches), context.train.labels[indices], classes)


def confusing_classes(scores: Tensor, classes: Tensor, pool: Tensor, count: int) -> Tensor:
    """Return the k classes of `pool` with which each of `classes` is most confused, in order; int64 [len(classes), k].

    scores [c, c]: `mean_scores`, of which only the class's own row is read. No class is confused with itself. k is
    `count`, or fewer if `pool` has fewer other classes. Raises ValueError if `pool` has no other class.
    """
    rows = torch.full((len(classes), len(scores)), -torch.inf)
    rows[:, pool] = scores[classes][:, pool]
    rows[torch.arange(len(classes)), classes] = -torch.inf
    most = min(count, int(rows.isfinite().sum(dim=1).min()))
    if most < 1:
        raise ValueError(f"no other class to take features from among {len(pool)}")
    return rows.topk(most, dim=1).indices


class ImagesByClass:
    """Samples images by class. indices [n]: the images; labels [n]: their labels; both on the CPU."""

    def __init__(self, labels: Tensor, indices: Tensor) -> None:
        self.indices = indices[labels.argsort(stable=True)]
        self.counts = labels.bincount()
        self.firsts = self.counts.cumsum(0) - self.counts

    def one_of_each(self, classes: Tensor, generator: torch.Generator) -> Tensor:
        """Sample one image of each class in `classes`, which may have any shape, with replacement."""
        places = torch.rand(classes.shape, generator=generator, dtype=torch.float64) * self.counts[classes]
        return self.indices[self.firsts[classes] + places.long()]

    def sample(self, pool: Tensor, count: int, by: str, generator: torch.Generator) -> Tensor:
        """Sample `count` images of the classes in `pool`, with replacement.

        by: images makes all images equally likely, classes all classes.
        """
        weights = torch.ones(len(pool)) if by == "classes" else self.counts[pool].double()
        sampled = torch.multinomial(weights, count, replacement=True, generator=generator)
        return self.one_of_each(pool[sampled], generator)


def head_tail_sampler(
    config: FSA,
    labels: Tensor,
    counts: np.ndarray,
    scores: Tensor,
    fixed: Callable[[], torch.Generator] | None = None,
) -> Sampler:
    """Return a `Stage.sampler` of `config.steps` batches (Algorithm 1).

    A batch is N_t tail images, then N_a donors of each in turn, then N_t (1 + N_a) head images. If there are as many
    donors as confusing classes, each class gives one donor. Otherwise each donor's class is sampled.
    labels [n]: of the whole training set. counts [c]: of the images in use. scores [c, c]: `mean_scores`. fixed: makes
    the generator that samples tail images and donors, the same one in every epoch. Raises ValueError without a tail.
    """
    labels, scores = labels.cpu(), scores.cpu()
    head, tail = (torch.from_numpy(ids) for ids in head_and_tail(counts, config.share))
    if not len(tail):
        raise ValueError(f"{len(head)} classes hold less than {config.share:g} of the images: there is no tail")
    pool = head if config.pool == "head" else torch.arange(len(counts))
    found = confusing_classes(scores, tail, pool, config.confusing)
    donors_from = torch.zeros(len(counts), found.shape[1], dtype=torch.long).index_copy_(0, tail, found)

    def order(indices: Tensor, generator: torch.Generator) -> Tensor:
        by_class, rows = ImagesByClass(labels[indices.cpu()], indices.cpu()), config.steps * config.tail
        own = fixed() if fixed else generator
        real = by_class.sample(tail, rows, config.tail_draw, own)
        other = by_class.sample(head, rows * (1 + config.donors), config.head_draw, generator)
        if config.donor_classes == "random":
            classes = head[torch.randint(len(head), (rows, config.donors), generator=own)]
        elif config.donors == donors_from.shape[1]:
            classes = donors_from[labels[real]]
        else:
            chosen = torch.randint(donors_from.shape[1], (rows, config.donors), generator=own)
            classes = donors_from[labels[real]].gather(1, chosen)
        parts = real, by_class.one_of_each(classes, own), other
        return torch.cat([part.view(config.steps, -1) for part in parts], dim=1).flatten().to(indices.device)

    return order


def plain_sampler(config: FSA, labels: Tensor, batch: int) -> Sampler:
    """Return a `Stage.sampler` of `config.steps` batches of `batch` images, for the controls without augmentation.

    `config.batch` natural makes all images equally likely, balanced all classes.
    """
    labels = labels.cpu()
    by = "classes" if config.batch == "balanced" else "images"

    def order(indices: Tensor, generator: torch.Generator) -> Tensor:
        own = labels[indices.cpu()]
        by_class = ImagesByClass(own, indices.cpu())
        return by_class.sample(own.unique(), config.steps * batch, by, generator).to(indices.device)

    return order
