"""Draws Fig. 2 and the supplement's Fig. 5: the test error for each manner of learning features and classifiers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bbn.reproduce.presets import MANNERS, Setting
from bbn.reproduce.tables import ERROR, claim, last, title
from common.drawing.curves import paired
from common.drawing.figures import Comparison, Drawing, Panel, PublishedFigure, Results, estimate


def source_first(settings: Sequence[Setting], source: str) -> list[Setting]:
    """Return the settings with that of the data set `source` first, on which the figure learns all features."""
    return sorted(settings, key=lambda s: s.role != source)


def matrices(settings: Sequence[Setting], results: Results, published: PublishedFigure, source: str) -> Drawing:
    """Draw the test error by manner of representation learning (columns) and of classifier learning (rows)."""
    targets = source_first(settings, source)
    panels, rows = [], []
    for target in targets:
        means, quantity = np.full((3, 3), np.nan), f"{ERROR}, classifier on {title(target, None)}"
        cells = {(c, f): results.get((target.role, f, c), []) for c in MANNERS for f in MANNERS}  # row by row
        for (classifier, features), found in cells.items():
            if found:
                stat = estimate([last(r) for r in found])
                means[MANNERS.index(classifier), MANNERS.index(features)] = stat.mean
                rows.append(Comparison(quantity, f"{features} features, {classifier} classifier", None, "", stat))
        panels.append(_heat(targets[0], target, means))
        repeats = zip(*paired(list(cells.values())), strict=True)
        whole = [np.reshape([last(r) for r in repeat], (3, 3)) for repeat in repeats]
        rows += _orderings(published, target, whole, target is targets[0]) if whole else []
    return Drawing(panels, rows, "test error (%) at the last epoch; the least of each column in bold")


def _heat(source: Setting, target: Setting, errors: np.ndarray) -> Panel:
    """Return a panel with the errors of one data set as a heat map."""
    return Panel(
        f"Classifier on {title(target, target.factor)}",
        f"features from {title(source, None)}",
        "classifier learning",
        kind="heat",
        matrix=errors,
        rows=MANNERS,
        columns=MANNERS,
    )


def _orderings(published: PublishedFigure, target: Setting, found: Sequence[np.ndarray], own: bool) -> list[Comparison]:
    """Return rows for the paper's statements about the matrix. The paper shows its numbers only in a picture.

    Each seed is judged by itself. own: whether the features were learnt on the same data. The paper says where the
    least error is only for that case.
    """
    where, corner = title(target, None), (MANNERS.index("RS"), MANNERS.index("CE"))
    columns = [float((m[1:] < m[0]).all(axis=0).sum()) for m in found]
    rows = [float((m[:, :1] < m[:, 1:]).all(axis=1).sum()) for m in found]
    least = [float(m[corner] == m.min()) for m in found]
    stated = [
        (f"columns of 3, on {where}", "RW and RS classifiers better than CE", columns),
        (f"rows of 3, on {where}", "CE features better than RW and RS", rows),
        (f"1 if the least error on {where}", "CE features, RS classifier", least),
    ]
    return [claim(published, *parts) for parts in stated[: 3 if own else 2]]
