"""Goes from a folder of your own images to figures, in about two minutes: python docs/own_images.py [FOLDER]

Printed characters of 16x16 pixels stand for your images, in 12 classes with 60 training images each. iCaRL and LUCIR
learn 6 of the classes, then 2 more in each of 3 phases. Then the losses of `class_balanced` train on a long-tailed
sample of the same folder, whose largest class has 20 times the images of its smallest. The schedules are a small part
of the papers', so the accuracies say little. Leave out epochs_scale for the whole schedules.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from common.command.cli import Arguments, reproduce
from common.command.console import run_command
from common.data import glyphs

CLASSES, TRAIN, TEST, PIXELS = 12, 60, 20, 16


def write_images(folder: Path) -> None:
    """Write train/<class>/*.png and test/<class>/*.png: all that a folder of your own needs."""
    train, train_labels, test, test_labels, _ = glyphs.generate(CLASSES, TRAIN, TEST, seed=0)
    for split, images, labels in (("train", train, train_labels), ("test", test, test_labels)):
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = folder / split / f"character {label:02}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(image)).resize((PIXELS, PIXELS)).save(path)


def main(out: Path) -> int:
    """Write the images and reproduce both papers on them. Returns the exit code."""
    data = out / "characters"
    write_images(data)
    growing = Arguments(preset="folder", data=data, base=6, phases=3, epochs_scale=0.15, out=out)
    tail = Arguments(preset="folder", data=data, imbalance=20, epochs_scale=0.5, out=out)
    return reproduce(["lucir"], growing) or reproduce(["class_balanced"], tail)


if __name__ == "__main__":
    run_command(lambda: main(Path(sys.argv[1] if len(sys.argv) > 1 else "results/own_images")))
