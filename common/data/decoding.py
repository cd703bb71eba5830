"""One image file as 8-bit RGB."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # of TIFF


def open_image(path: Path) -> Image:
    """Decode one image file to a Pillow image of mode RGB. A part can be cut before its pixels become an array.

    16 bits are scaled to 8. An animation counts as its first picture. Turns and mirrorings that EXIF asks for are not
    done, as in torchvision's ImageFolder. Raises InputError naming the file where it is damaged, or where the range of
    its values is not known (32-bit, signed and floating-point pixels).
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
                # 65535 is 255 times 257; half of 257 is added to round.
                levels = (np.asarray(image).astype(np.uint32) + 128) // 257
                return Image.fromarray(levels.astype(np.uint8)).convert("RGB")
    except Exception as error:  # damaged files make Pillow's readers raise nearly anything
        raise InputError(f"cannot read the image {path} ({one_line(error)}); replace it or delete it") from None
    raise InputError(
        f"{path} has {problem}, which cannot be brought to 8 bits for certain; save it with 8 bits a channel"
    )


def _unscalable(image: Image) -> str:
    """Why one deep channel cannot be scaled from 0 ... 65535, or ""."""
    if image.mode == "F":
        return "floating-point pixels"
    if image.mode == "I" and image.format not in ("PNG", "PPM"):  # these two hold 16 bits in it
        return "32-bit or signed pixels"
    tags = getattr(image, "tag_v2", {})  # of TIFF
    bits = tags.get(BITS_PER_SAMPLE, (16,))[0]
    if bits != 16:
        return f"{bits}-bit pixels"
    return "16-bit pixels of which 0 is white" if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else ""


def one_line(error: Exception) -> str:
    """The error's message on one line."""
    return " ".join(str(error).split()) or type(error).__name__
