"""Decodes one image file to 8-bit RGB."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

SCALED = ("PNG", "PPM", "TIFF", "JPEG2000")
"""Formats whose one channel of 16 bits goes from 0 to 65535. Values of others, such as FITS, may be signed."""
BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # two TIFF tags, and a value of the second


def open_image(path: Path) -> Image:
    """Decode one image file to a Pillow image of mode RGB, which can be cropped before it is converted to an array.

    16 bits are scaled to 8. Only the first picture of an animation is used. The orientation in EXIF data is ignored, as
    in torchvision's ImageFolder. Raises InputError, which names the file, if the file is damaged, or if the range of
    its values is unknown (32-bit, signed or floating-point pixels).
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            deep = image.mode in ("I", "F") or image.mode.startswith("I;")
            if image.mode == "RGB":
                return image
            if not deep:
                return image.convert("RGB")
            problem = _unscalable(image)
            if not problem:
                # 65535 is 255 times 257; adding half of 257 rounds to the nearest level.
                levels = (np.asarray(image).astype(np.uint32) + 128) // 257
                return Image.fromarray(levels.astype(np.uint8)).convert("RGB")
    except Exception as error:  # on damaged files, Pillow's readers raise nearly any exception
        raise InputError(f"cannot read the image {path} ({one_line(error)}); replace it or delete it") from None
    raise InputError(
        f"{path} has {problem}, which cannot be brought to 8 bits for certain; save it with 8 bits a channel"
    )


def _unscalable(image: Image) -> str:
    """Return why the one channel of a deep image cannot be scaled from 0 ... 65535 to 8 bits, or "" if it can be."""
    if image.mode == "F":
        return "floating-point pixels"
    if image.mode == "I" and image.format not in ("PNG", "PPM"):  # in these formats, mode I holds 16 bits
        return "32-bit or signed pixels"
    if image.format not in SCALED:
        return f"deep pixels of the format {image.format}"
    tags = getattr(image, "tag_v2", {})  # only TIFF images have tags
    bits = tags.get(BITS_PER_SAMPLE, (16,))[0]
    if bits != 16:
        return f"{bits}-bit pixels"
    return "16-bit pixels of which 0 is white" if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else ""


def one_line(error: Exception) -> str:
    """Return the error's message on one line."""
    return " ".join(str(error).split()) or type(error).__name__
