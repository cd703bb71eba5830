"""Tests that the embedded data set is reproducible and nested, with classes that can be learned, but not from colour.

Every test draws few images, so that the file takes seconds.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import matplotlib
import numpy as np
import pytest

from common.data import glyphs

GOLDEN = {"3.11.2": "3b2bdc9d8f3cec74"}  # matplotlib version -> the start of the sha256 of the images below


def _ridge_accuracy(train: np.ndarray, labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray) -> float:
    """Return the accuracy of ridge regression on one-hot targets; features are [n, d]."""
    mean, scale = train.mean(0), train.std(0) + 1e-6
    x, y = (train - mean) / scale, np.eye(labels.max() + 1)[labels]
    kernel = x @ x.T
    weights = x.T @ np.linalg.solve(kernel + 0.1 * np.trace(kernel) / len(x) * np.eye(len(x)), y - y.mean(0))
    return float(((((test - mean) / scale) @ weights + y.mean(0)).argmax(1) == test_labels).mean())


@pytest.fixture(scope="module")
def small() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return ten classes of 80 training and 20 test images."""
    return glyphs.generate(10, 80, 20)


def test_shapes_types_and_order(small: tuple) -> None:
    images, labels, test_images, test_labels, names = small
    assert images.shape == (800, 32, 32, 3) and test_images.shape == (200, 32, 32, 3)
    assert images.dtype == test_images.dtype == np.uint8
    assert labels.dtype == test_labels.dtype == np.int64
    assert labels.tolist() == [c for c in range(10) for _ in range(80)]
    assert test_labels.tolist() == [c for c in range(10) for _ in range(20)]
    assert names == tuple(glyphs.CHARACTERS[:10]) and all(isinstance(name, str) for name in names)


def test_the_same_call_gives_the_same_bytes_even_in_another_process(small: tuple) -> None:
    code = (
        "import hashlib; from common.data.glyphs import generate; d = generate(3, 5, 2);"
        "print(hashlib.sha256(d[0].tobytes() + d[2].tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = glyphs.generate(3, 5, 2)
    assert hashlib.sha256(here[0].tobytes() + here[2].tobytes()).hexdigest() == other.stdout.strip()


@pytest.mark.parametrize(("classes", "train", "test"), [(4, 70, 9), (10, 1, 20), (1, 65, 1)])
def test_smaller_sets_are_nested(small: tuple, classes: int, train: int, test: int) -> None:
    part = glyphs.generate(classes, train, test)
    for got, whole, count in ((part[0], small[0], train), (part[2], small[2], test)):
        expected = whole.reshape(10, -1, 32, 32, 3)[:classes, :count]
        np.testing.assert_array_equal(got.reshape(expected.shape), expected)


def test_an_image_does_not_depend_on_what_was_drawn_before(small: tuple) -> None:
    glyphs.generate(2, 3, 1, seed=9)
    np.testing.assert_array_equal(glyphs.generate(10, 2, 1)[2], small[2][::20])


def test_seeds_and_splits_differ_and_no_image_repeats(small: tuple) -> None:
    other = glyphs.generate(10, 20, 20, seed=1)
    everything = np.concatenate([small[0], small[2], other[0], other[2]])
    assert len({image.tobytes() for image in everything}) == len(everything)


def test_the_golden_bytes_of_this_matplotlib() -> None:
    if matplotlib.__version__ not in GOLDEN:
        pytest.skip(f"the glyph outlines of matplotlib {matplotlib.__version__} have no recorded hash")
    data = glyphs.generate(5, 10, 5)
    digest = hashlib.sha256(data[0].tobytes() + data[2].tobytes()).hexdigest()
    assert digest.startswith(GOLDEN[matplotlib.__version__])


def test_characters_are_distinct_in_every_face() -> None:
    assert len(glyphs.CHARACTERS) == len(set(glyphs.CHARACTERS)) >= 130
    faces, owner = [], []
    for label, character in enumerate(glyphs.CHARACTERS):
        masks = glyphs.clean_masks(character)
        assert len(masks) >= 4, character
        assert masks[:, 20:108, 20:108].sum() == masks.sum() > 0, f"{character} leaves its box"
        faces.append(masks.reshape(-1, 16, 8, 16, 8).mean((2, 4)))
        owner += [label] * len(masks)
    shapes, labels = np.concatenate(faces), np.array(owner)
    means = np.stack([face.mean(0) for face in faces])
    both = np.concatenate([means, means[:, :, ::-1]])  # a mirrored class must not pass for another one either
    near = ((shapes[:, None] - both) ** 2).sum((2, 3)).argmin(1) % len(means)
    assert (near == labels).mean() > 0.93
    assert min((near[labels == label] == label).mean() for label in range(len(means))) >= 0.5


def test_shape_tells_the_classes_and_mean_colour_does_not() -> None:
    images, labels, test_images, test_labels, _ = glyphs.generate(5, 200, 40)
    colours = [x.reshape(len(x), -1, 3).mean(1) for x in (images.astype(float), test_images.astype(float))]
    assert _ridge_accuracy(colours[0], labels, colours[1], test_labels) < 0.3
    edges = []
    for x in (images, test_images):
        x = x.astype(float)
        slopes = np.abs(np.diff(x, axis=1))[:, :, 1:].sum(3), np.abs(np.diff(x, axis=2))[:, 1:].sum(3)
        edges.append(np.stack([s[:, :30, :30].reshape(-1, 10, 3, 10, 3).mean((2, 4)) for s in slopes], 1))
    edges = [np.sqrt(e.reshape(len(e), -1)) for e in edges]
    assert _ridge_accuracy(edges[0], labels, edges[1], test_labels) > 0.6


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_classes": 0},
        {"num_classes": len(glyphs.CHARACTERS) + 1},
        {"num_classes": 2.0},
        {"per_class": 0},
        {"per_class": True},
        {"test_per_class": -1},
        {"seed": -1},
    ],
)
def test_bad_arguments_are_refused_in_one_line(arguments: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))) as caught:
        glyphs.generate(**{"num_classes": 1, "per_class": 1, "test_per_class": 1, **arguments})
    assert "\n" not in str(caught.value)


def test_importing_the_module_loads_no_heavy_package() -> None:
    code = "import sys, common.data.glyphs; print([m for m in ('torch', 'scipy', 'matplotlib') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


@pytest.mark.parametrize(("backend", "taken"), [("nonsense", False), ("module://none.such", True), ("svg", True)])
def test_the_backend_of_matplotlib_does_not_matter(backend: str, taken: bool) -> None:
    """A backend that does not exist stops nothing. A backend that exists stays the user's choice."""
    code = (
        "import os; from common.data import glyphs; print(glyphs.generate(1, 1, 1)[0].size); "
        "import matplotlib; print(matplotlib.rcParams['backend'] == os.environ['MPLBACKEND'])"
    )
    environment = {**os.environ, "MPLBACKEND": backend}
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert shown.stdout.split() == ["3072", str(taken)], shown.stderr
