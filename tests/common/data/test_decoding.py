"""Tests images with more than 8 bits a channel: they are scaled by their range, or refused by name if it is unknown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from common.data.decoding import open_image
from common.data.folders import read_image
from common.errors import InputError

LEVELS = np.arange(256, dtype=np.uint16).reshape(16, 16)


def big_endian(path: Path, pixels: np.ndarray) -> None:
    """Write a TIFF in the byte order that Pillow would not use: a header, the pixels and one directory."""
    height, width = pixels.shape
    tags = [(256, width), (257, height), (258, 16), (259, 1), (262, 1), (273, 8), (278, height), (279, 2 * pixels.size)]
    directory = b"".join(
        tag.to_bytes(2, "big") + (4).to_bytes(2, "big") + (1).to_bytes(4, "big") + value.to_bytes(4, "big")
        for tag, value in tags
    )
    data = pixels.astype(">u2").tobytes()
    head = b"MM\0*" + (8 + len(data)).to_bytes(4, "big")
    path.write_bytes(head + data + len(tags).to_bytes(2, "big") + directory + bytes(4))


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm", "big"])
@pytest.mark.parametrize("shift", [-128, 0, 128])
def test_16_bits_become_the_nearest_of_8(suffix: str, shift: int, tmp_path: Path) -> None:
    path = tmp_path / f"deep.{suffix}"
    pixels = np.clip(LEVELS.astype(np.int64) * 257 + shift, 0, 65535).astype(np.uint16)
    if suffix == "big":
        big_endian(path, pixels)
    elif suffix == "pgm":
        path.write_bytes(b"P5 16 16 65535\n" + pixels.astype(">u2").tobytes())
    else:
        Image.fromarray(pixels).save(path)
    with Image.open(path) as image:
        assert image.mode[0] == "I"
    assert np.array_equal(read_image(path), np.repeat(LEVELS[..., None], 3, axis=2))


@pytest.mark.parametrize(
    ("pixels", "options", "words"),
    [
        (LEVELS.astype(np.int32) << 16, {}, "32-bit or signed pixels"),
        (LEVELS.astype(np.float32) / 255, {}, "floating-point pixels"),
        (LEVELS * 257, {"tiffinfo": {262: 0}}, "16-bit pixels of which 0 is white"),
    ],
)
def test_values_of_unknown_range_are_refused(
    pixels: np.ndarray, options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "deep.tif"
    Image.fromarray(pixels).save(path, **options)
    with pytest.raises(InputError, match=f"deep.tif has {words}.* save it with 8 bits a channel"):
        open_image(path)


def test_deep_pixels_of_other_formats_are_refused(tmp_path: Path) -> None:
    cards = ("SIMPLE  = T", "BITPIX  = 16", "NAXIS   = 2", "NAXIS1  = 16", "NAXIS2  = 16", "END")
    pixels = (LEVELS.astype(np.int16) - 128).astype(">i2").tobytes()  # FITS has signed numbers
    (tmp_path / "deep.fits").write_bytes("".join(c.ljust(80) for c in cards).ljust(2880).encode() + pixels.ljust(2880))
    with pytest.raises(InputError, match=r"deep.fits has deep pixels of the format FITS.* save it with 8 bits"):
        open_image(tmp_path / "deep.fits")


def test_exif_turns_nothing(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (8, 4)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (4, 8, 3)
