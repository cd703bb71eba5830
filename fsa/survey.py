"""Measures what figures show of Phase I's feature space: scatter plots, activation maps on images, and numbers.

The measurements become the summary of a run that trains nothing. So figures remain functions of Results.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.heads import extract
from common.incremental import Learner, Phase
from common.loader import DeviceImages, Images
from fsa.augment import augmented, pooled
from fsa.batches import ImagesByClass, class_scores, confusing_classes
from fsa.cam import class_activation_map, split
from fsa.methods import Survey
from fsa.splits import head_and_tail

NEIGHBOURS = 5
Points = list[list[float]]


class SurveyLearner(Learner):
    """Measures Phase I's network. Its schedule has no epochs."""

    config: Survey
    net: Any

    def summary(self, phase: Phase) -> dict[str, Any]:
        """Add all measurements of the survey."""
        self.net.eval()
        with torch.no_grad():
            parts = self.parts()
            return {**super().summary(phase), **parts, **self.tail(), "pictures": self.pictures(phase)}

    def chosen(self, images: Images, classes: tuple[int, ...], limit: int) -> Tensor:
        """Return the indices of the first images of each class, at most `limit` of each."""
        of_class = [(images.labels == c).nonzero().squeeze(1)[:limit] for c in classes]
        return torch.cat(of_class)

    def maps(self, images: Images, indices: Tensor) -> Tensor:
        """Return the feature maps of un-augmented images before pooling, fp32 [n, c, h, w]."""
        with self.context.device.autocast():
            return torch.cat([self.net.backbone.maps(batch).float() for batch in images.plain(indices)])

    def halves(self, maps: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pooled class-specific and class-generic features of maps, [n, c] each."""
        c = self.config.fsa
        cams = class_activation_map(maps, self.net.head.weight, labels, c.scaling)
        masks = (m.flatten(1).float() for m in split(cams, c.tau_specific, c.tau_generic))
        specific, generic = (pooled(maps, m / m.sum(dim=1, keepdim=True).clamp(min=1)) for m in masks)
        return specific, generic

    def parts(self) -> dict[str, Any]:
        """Measure test features of a few classes: whole, class-specific and class-generic (Fig. 3 and 4).

        As in the paper, the true class selects the locations. This alone separates the classes. So the numbers are also
        measured with the predicted class.
        """
        images = self.context.test
        indices = self.chosen(images, self.config.classes, self.config.points)
        maps, labels = self.maps(images, indices), images.labels[indices]
        whole = maps.mean(dim=(2, 3))
        own = self.halves(maps, labels)
        guessed = self.halves(maps, self.net.head(whole).argmax(dim=1))
        features = {"whole": whole, "specific": own[0], "generic": own[1]}
        measured = {**features, "specific, predicted class": guessed[0], "generic, predicted class": guessed[1]}
        return {
            "labels": labels.tolist(),
            "scatter": {name: embedded(f) for name, f in features.items()},
            "neighbours": {name: neighbour_accuracy(f, labels) for name, f in measured.items()},
            "similarity": {name: class_similarity(f, labels) for name, f in measured.items()},
        }

    def tail(self) -> dict[str, Any]:
        """Measure augmented features of the last class, with its training images, test images and donors."""
        context, config, device = self.context, self.config.fsa, self.context.device.torch
        label, count = self.config.classes[-1], self.config.points
        everything = context.of_classes(0, len(context.counts))
        labels = context.train.labels[everything]
        scores = class_scores(self.net, context, everything).cpu()
        head = torch.from_numpy(head_and_tail(context.counts, config.share)[0])
        mine = torch.tensor([label])
        donor_classes = confusing_classes(scores, mine, head, config.confusing)[0]
        by_class, generator = ImagesByClass(labels.cpu(), everything.cpu()), context.generator("survey")
        tails = by_class.one_of_each(mine.expand(count), generator).to(device)
        classes = donor_classes[torch.randint(len(donor_classes), (count,), generator=generator)]
        donors = by_class.one_of_each(classes, generator).to(device)
        tail_maps, donor_maps = (self.maps(context.train, i) for i in (tails, donors))
        numbers = torch.rand(count, 1 + tail_maps.shape[2] * tail_maps.shape[3], generator=generator).to(device)
        single, own, theirs = replace(config, donors=1), context.train.labels[tails], context.train.labels[donors]
        fused = augmented(single, self.net.head.weight, tail_maps, own, donor_maps, theirs, numbers)
        real = everything[labels == label][:count]
        unseen = self.chosen(context.test, (label,), count)
        groups = {
            "donors, head classes": donor_maps.mean(dim=(2, 3)),
            "augmented": fused,
            "test images": extract(self.net, context.test, unseen),
            "training images": extract(self.net, context.train, real),
        }
        return {
            "tail": {
                "class": label,
                "donors": donor_classes.tolist(),
                "kinds": [name for name, part in groups.items() for _ in range(len(part))],
                "points": embedded(torch.cat(list(groups.values()))),
                "distance": {name: nearest_distance(groups["test images"], part) for name, part in groups.items()},
            }
        }

    def pictures(self, phase: Phase) -> list[dict[str, Any]]:
        """Return test images with the activation maps of their classes, from the largest class to the smallest.

        The list is empty if images stay files.
        """
        images, context = self.context.test, self.context
        if not isinstance(images, DeviceImages):
            return []
        order = np.argsort(-context.counts, kind="stable")
        picked = order[np.linspace(0, phase.seen - 1, self.config.pictures).round().astype(int)]
        indices = torch.stack([(images.labels == int(c)).nonzero()[0, 0] for c in picked])
        maps, labels = self.maps(images, indices), images.labels[indices]
        cams = class_activation_map(maps, self.net.head.weight, labels, self.config.fsa.scaling)
        guesses = self.net.head(maps.mean(dim=(2, 3))).argmax(dim=1)
        return [
            {
                "label": int(label),
                "guess": int(guess),
                "image": images.images[index].permute(1, 2, 0).tolist(),
                "cam": [[round(v, 4) for v in row] for row in cam.tolist()],
            }
            for index, label, guess, cam in zip(indices, labels, guesses, cams, strict=True)
        ]


def embedded(features: Tensor) -> Points:
    """Embed features [n, c] by t-SNE: [n, 2], rounded. It starts from a PCA, with cosine distances and a fixed seed."""
    from sklearn.manifold import TSNE

    values = features.cpu().numpy().astype(np.float64)
    tsne = TSNE(2, perplexity=min(30.0, (len(values) - 1) / 3), init="pca", metric="cosine", random_state=0)
    return [[round(float(x), 2), round(float(y), 2)] for x, y in tsne.fit_transform(values)]


def neighbour_accuracy(features: Tensor, labels: Tensor) -> float:
    """Return the share of images, percent, whose class is the majority among their 5 nearest others, by cosine."""
    unit = F.normalize(features, dim=1)
    cosines = (unit @ unit.T).fill_diagonal_(-torch.inf)
    votes = F.one_hot(labels[cosines.topk(min(NEIGHBOURS, len(labels) - 1), dim=1).indices]).sum(dim=1)
    return round(100 * (votes.argmax(dim=1) == labels).float().mean().item(), 3)


def class_similarity(features: Tensor, labels: Tensor) -> float:
    """Return the mean cosine between the mean features of two classes, which tells how much classes share."""
    means = F.normalize(torch.stack([features[labels == c].mean(dim=0) for c in labels.unique()]), dim=1)
    cosines = means @ means.T
    return round(cosines[~torch.eye(len(means), dtype=torch.bool, device=cosines.device)].mean().item(), 4)


def nearest_distance(targets: Tensor, features: Tensor) -> float:
    """Return the mean cosine distance from each target to the nearest of `features`, other than itself."""
    cosines = F.normalize(targets, dim=1) @ F.normalize(features, dim=1).T
    if targets.data_ptr() == features.data_ptr():
        cosines.fill_diagonal_(-torch.inf)
    return round(1 - cosines.amax(dim=1).mean().item(), 4)
