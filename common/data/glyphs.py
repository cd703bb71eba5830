"""The embedded data set `glyphs`: 32x32 colour pictures of printed characters, drawn on demand with matplotlib's fonts.

All arithmetic after rasterising uses integers, so that a seed gives the same bytes on every processor.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from functools import cache, lru_cache
from typing import Any

import numpy as np

# Each character is a class. No two look alike, in no alphabet, mirrored (b and d, R and Я) or in italics.
CHARACTERS = (
    "♀Ψ☎O⋈3ჭБ✉ԴÇ✿♆ΞŒ#≠Дქ♂Å✂Ծ⌘D♉4ω♥KЉ♏ბ↻XՄ⌂∀√Tσ♠Њ♫ფR⚡7Ֆ{a↑μ+ѢŁ☾♄ლ☂ñԲ¶☁YΩЫ©8∫Gჟ∞♞Ձ"
    "e£Ѫ℃ξ&Q≈ჯ✈ÆԹ∇2♭ЮA⊕η☃E≥პ☠Խ⇒ØШ❄λ☯t☢5%თb§ՃЦ№r⚓β★∴Wღ@Ђ?ՔH◊6$Δg⚙→ტm€ЖՋ♪☺P"
)
FACES = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
    *("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
)

# These factors vary from image to image, and set the difficulty. Lengths are in pixels of the 32x32 image.
LENGTH = (20, 27)  # longest side of the character
ANISOTROPY = (0.88, 1.14)  # scale of the width relative to the height
ROTATION = 10  # largest angle in degrees, in either direction
SHEAR = 0.10  # largest shear, in either direction
OFFSET = 1.5  # largest distance between the centres of character and image, along each axis
CONTRAST = (90, 190)  # grey levels between the character and its background; both signs are equally likely
CHROMA = 40  # largest difference of a colour channel from the grey level; every layer samples its own tint
BACKGROUND = (25, 30)  # largest amplitudes, in grey levels, of the gradient and of the texture
BLUR = (3, 5)  # widths of the filters to sample from, in cells of the masks (about 4 cells are one pixel)
FRAGMENTS = 1  # number of pieces of other characters at the rim, behind the character
RIM = (19.0, 22.0)  # distance of the fragments' centres from the image's centre
STROKE = (0.0, 0.4)  # half the width of the line that is drawn over everything; thin lines are faint
NOISE = (2, 16)  # largest absolute value of the triangular pixel noise, in grey levels
FAINT_SHARE = 0.13  # share of faint images, which are hard to read: they limit accuracy, yet few images still teach
FAINT = (0.02, 0.22)  # opacity of the character in faint images; it is 1 in the others

SIZE = 32
_CELLS, _BOX = 128, 80  # side of a mask, and of the box in its middle that a character fills
_CHUNK = 64  # images drawn at once: few enough for the processor's cache
_COLUMNS = 64  # 16-bit random numbers reserved for one image
_TURN = 4096  # steps in a full turn; also the scale of the sine table
_SINE = np.rint(np.sin(np.arange(_TURN) * (2 * np.pi / _TURN)) * _TURN).astype(np.int64)
_AXIS = 2 * np.arange(SIZE, dtype=np.int32) - (SIZE - 1)  # pixel centres in half pixels from the image's centre
_DISTRACTORS = "AgR5Ж&Ωδ#Ψ8Љ@ξKფ"


def generate(
    num_classes: int = 100, per_class: int = 500, test_per_class: int = 100, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]:
    """Draw the data set. A larger data set begins with the same classes, and each class with the same images.

    Returns train images (uint8 [n, 32, 32, 3]), train labels (int64 [n]), test images, test labels and the class names
    (one character each). Images are grouped by class, in label order.
    Raises ValueError on a count below 1, more classes than CHARACTERS has, or a negative seed.
    """
    numbers = {"num_classes": num_classes, "per_class": per_class, "test_per_class": test_per_class, "seed": seed}
    for name, value in numbers.items():
        least = int(name != "seed")
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise ValueError(f"glyphs: {name} must be an integer of at least {least}, not {value!r}")
    if num_classes > len(CHARACTERS):
        raise ValueError(f"glyphs: num_classes must be at most {len(CHARACTERS)}, not {num_classes}")
    names = tuple(CHARACTERS[:num_classes])
    parts: list[np.ndarray] = []
    for split, count in enumerate((per_class, test_per_class)):
        images = np.empty((num_classes, count, SIZE, SIZE, 3), np.uint8)
        for out, character in zip(images, names, strict=True):
            _draw_class(out, character, split, int(seed))
        parts += [images.reshape(-1, SIZE, SIZE, 3), np.repeat(np.arange(num_classes, dtype=np.int64), count)]
    return parts[0], parts[1], parts[2], parts[3], names


def _matplotlib() -> Any:
    """Import matplotlib, even if MPLBACKEND names a missing backend.

    The import would fail then, although fonts need no backend.
    """
    fresh, backend = "matplotlib" not in sys.modules, os.environ.pop("MPLBACKEND", None)
    import matplotlib

    if backend is not None:
        os.environ["MPLBACKEND"] = backend
    if backend and fresh:  # the import would have set it
        with suppress(ValueError):
            matplotlib.rcParams["backend"] = backend
    return matplotlib


@cache
def _fonts() -> tuple[Any, ...]:
    """Return the font faces, which are opened once."""
    matplotlib = _matplotlib()
    from matplotlib.ft2font import FT2Font

    return tuple(FT2Font(f"{matplotlib.get_data_path()}/fonts/ttf/{face}.ttf") for face in FACES)


def _raster(font: Any, character: str) -> np.ndarray:
    """Return the coverage of one character, uint8 [128, 128]: centred, with a longest side of about 80 cells."""
    from matplotlib import ft2font

    unhinted = getattr(ft2font, "LoadFlags", int)(2)  # FT_LOAD_NO_HINTING, which was an int before matplotlib 3.10
    font.set_size(_BOX, 72)
    left, bottom, right, top = font.load_char(ord(character), flags=unhinted).bbox
    font.set_size(_BOX * 64 * _BOX / max(right - left, top - bottom), 72)
    font.set_text(character, 0.0, flags=unhinted)
    font.draw_glyphs_to_bitmap(antialiased=True)
    ink = np.asarray(font.get_image())
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    (height, width), mask = ink.shape, np.zeros((_CELLS, _CELLS), np.uint8)
    y, x = (_CELLS - height) // 2, (_CELLS - width) // 2
    mask[y : y + height, x : x + width] = ink
    return mask


def _box_filter(masks: np.ndarray, width: int) -> np.ndarray:
    """Replace each cell by the mean of width x width cells (width odd), uint8 like `masks`. Margins must be 0."""
    reach, total = width // 2, masks.astype(np.int32)
    for _ in range(2):  # along the last axis, then transposed along the other
        run, total = np.cumsum(total, axis=2, dtype=np.int32), np.zeros_like(total)
        total[..., reach + 1 : _CELLS - reach] = run[..., width:] - run[..., :-width]
        total = total.transpose(0, 2, 1)
    return (total // width**2).astype(np.uint8)


@cache
def clean_masks(character: str) -> np.ndarray:
    """Return the character in every face that has it, uint8 [faces, 128, 128]. 0 is black and 255 white."""
    return np.stack([_raster(font, character) for font in _fonts() if font.get_char_index(ord(character))])


@lru_cache(maxsize=8)
def _tables(characters: str, widths: tuple[int, ...]) -> np.ndarray:
    """Return blurred masks to sample from, uint8 [faces * filters, 128 * 128]. Two box filters approach a Gaussian."""
    masks = np.concatenate([clean_masks(character) for character in characters])
    smooth = [_box_filter(_box_filter(masks, width), width) for width in widths]
    return np.concatenate(smooth).reshape(-1, _CELLS * _CELLS)


@cache
def _textures() -> np.ndarray:
    """Return four periodic patterns from 0 to 255, uint8 [4 * 128 * 128]: coarse and fine noise, stripes and dots."""
    grain = (np.random.PCG64(0).random_raw(_CELLS * _CELLS // 4) & 255).astype(np.int64).reshape(64, 64)
    patterns = []
    for width in (16, 6):
        smooth = grain
        for axis in (0, 1, 0, 1):
            smooth = np.sum([np.roll(smooth, shift, axis) for shift in range(width)], 0) // width
        patterns.append(np.kron((smooth - smooth.min()) * 255 // np.ptp(smooth), np.ones((2, 2), np.int64)))
    wave = _SINE[np.arange(_CELLS) * (_TURN // 32) % _TURN]
    patterns += [w * 127 // _TURN + 128 for w in (np.tile(wave, (_CELLS, 1)), wave[:, None] * wave // _TURN)]
    return np.stack(patterns).astype(np.uint8).reshape(-1)


class _Dice:
    """Samples uniform integers for a batch of images. Each image has its own row of 16-bit random numbers."""

    def __init__(self, rows: np.ndarray) -> None:
        self.columns = iter(rows.T.astype(np.int64))

    def roll(self, low: int | np.ndarray, high: int | np.ndarray) -> np.ndarray:
        """Sample one integer from low to high, both included, for every image; [n]."""
        return low + (next(self.columns) * (high - low + 1) >> 16)

    def colour(self, grey: np.ndarray) -> np.ndarray:
        """Sample a tint of the given grey level for every image; [n, 3]."""
        tint = np.stack([self.roll(-CHROMA, CHROMA) for _ in range(3)], 1)
        return np.clip(grey[:, None] + tint - tint.sum(1, keepdims=True) // 3, 0, 255)

    def contrasting(self, grey: np.ndarray) -> np.ndarray:
        """Sample a colour that differs from the grey level by CONTRAST, for every image; [n, 3]."""
        other = grey + self.roll(*CONTRAST) * (2 * self.roll(0, 1) - 1)
        return self.colour(np.where((other < 0) | (other > 255), 2 * grey - other, other))


def _draw_class(out: np.ndarray, character: str, split: int, seed: int) -> None:
    """Draw images into `out`, uint8 [n, 32, 32, 3]. Image i depends only on character, split, seed and i."""
    # Raw words are used because numpy guarantees their stream, but not that of its distributions.
    layout, grain = (np.random.PCG64(np.random.SeedSequence([split, ord(character), k, seed])) for k in (0, 1))
    for start in range(0, len(out), _CHUNK):
        part = out[start : start + _CHUNK]
        rows = layout.random_raw(len(part) * _COLUMNS // 4).astype("<u8").view("<u2").reshape(len(part), -1)
        noise = grain.random_raw(part.size // 8).astype("<u8").view(np.uint8).reshape(len(part), -1)
        part[:] = _draw(_Dice(rows), noise, character)


def _draw(dice: _Dice, grain: np.ndarray, character: str) -> np.ndarray:
    """Draw a batch of pictures of one character, uint8 [n, 32, 32, 3].

    The layers, from back to front, are background, fragments, character, stroke and noise.
    """
    grey = dice.roll(30, 225)
    canvas = dice.colour(grey)[:, :, None] + _background(dice)
    for _ in range(FRAGMENTS):
        angle, radius = dice.roll(0, _TURN - 1), dice.roll(*_fixed(RIM, 32))
        offset = radius * _SINE[angle] // (16 * _TURN), radius * _SINE[angle - _TURN // 4] // (16 * _TURN)
        _blend(canvas, dice.contrasting(grey), _cover(dice, _tables(_DISTRACTORS, BLUR[:1]), offset))
    reach = round(2 * OFFSET)
    cover = _cover(dice, _tables(character, BLUR), (dice.roll(-reach, reach), dice.roll(-reach, reach)))
    opacity = np.where(dice.roll(0, 255) < round(256 * FAINT_SHARE), dice.roll(*_fixed(FAINT, 256)), 256)
    _blend(canvas, dice.contrasting(grey), cover * opacity[:, None] >> 8)
    _blend(canvas, dice.colour(dice.roll(0, 255)), _stroke(dice))
    noise = ((grain & 15).astype(np.int32) + (grain >> 4) - 15) * dice.roll(*_fixed(NOISE, 16))[:, None]
    canvas += noise.reshape(canvas.shape) // (15 * 16)
    return np.clip(canvas, 0, 255).astype(np.uint8).reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1)


def _fixed(span: tuple[float, float], scale: int) -> tuple[int, int]:
    """Return the span in integer units of 1 / scale."""
    return round(span[0] * scale), round(span[1] * scale)


def _blend(canvas: np.ndarray, colour: np.ndarray, cover: np.ndarray) -> None:
    """Paint a colour [n, 3] on the canvas [n, 3, pixels], with the opacity `cover` [n, pixels] from 0 to 256."""
    canvas += (colour[:, :, None].astype(np.int32) - canvas) * cover[:, None].astype(np.int32) >> 8


def _project(x_weight: np.ndarray, y_weight: np.ndarray) -> np.ndarray:
    """Compute x_weight * x + y_weight * y at every pixel: weights [n] -> [n, pixels].

    x and y are in half pixels from the centre.
    """
    x, y = (weight.astype(np.int32)[:, None, None] for weight in (x_weight, y_weight))
    return (x * _AXIS + y * _AXIS[:, None]).reshape(len(x_weight), -1)


def _background(dice: _Dice) -> np.ndarray:
    """Sample a gradient and a texture, each in its own colour, as differences from the plain colour: [n, 3, pixels]."""
    angle, zoom = dice.roll(0, _TURN - 1), dice.roll(128, 512)
    sine, cosine = _SINE[angle], _SINE[angle - _TURN // 4]
    gradient = _project(sine, -cosine) // (_TURN * 44 // 128)
    spread = ((cosine * zoom // _TURN, sine * zoom // _TURN), (-sine * zoom // _TURN, cosine * zoom // _TURN))
    x, y = ((_project(*weights) // 128 + dice.roll(0, _CELLS - 1)[:, None]) & (_CELLS - 1) for weights in spread)
    which = dice.roll(0, len(_textures()) // _CELLS**2 - 1)[:, None]
    texture = _textures()[(which * _CELLS + y) * _CELLS + x].astype(np.int32) - 128
    tints = [np.stack([dice.roll(-most, most) for _ in range(3)], 1).astype(np.int32) for most in BACKGROUND]
    return sum(tint[:, :, None] * field[:, None] >> 7 for tint, field in zip(tints, (gradient, texture), strict=True))


def _cover(dice: _Dice, tables: np.ndarray, offset: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Sample masks under random affine maps: cover [n, pixels], 0 to 256. offset: of the centres, in half pixels."""
    which = dice.roll(0, len(tables) - 1)
    # Scales are cells per half pixel, times 1024: the map goes from the picture back to the mask.
    scale_x = _BOX * 1024 * 16 // (2 * dice.roll(*_fixed(LENGTH, 16)))
    scale_y = scale_x * dice.roll(*_fixed(ANISOTROPY, 256)) // 256
    turn = round(ROTATION * _TURN / 360)
    angle, shear = dice.roll(-turn, turn), dice.roll(*_fixed((-SHEAR, SHEAR), 256))
    sine, cosine = _SINE[angle], _SINE[angle + _TURN // 4]
    # The map is a rotation, then a shear along x, then the scales.
    along_x = (cosine + sine * shear // 256) * scale_x, (cosine * shear // 256 - sine) * scale_x
    cell = which[:, None]
    for a, b in ((sine * scale_y, cosine * scale_y), along_x):
        a, b = a // _TURN, b // _TURN
        centre = _CELLS * 512 - a * offset[0] - b * offset[1]
        cell = cell * _CELLS + np.clip(_project(a, b) + centre[:, None] >> 10, 0, _CELLS - 1)
    cover = tables.reshape(-1)[cell].astype(np.int32)
    return cover + (cover >> 7)


def _stroke(dice: _Dice) -> np.ndarray:
    """Sample a straight line at a random angle, up to 9 pixels from the centre: cover [n, pixels], 0 to 256."""
    angle, distance = dice.roll(0, _TURN - 1), dice.roll(0, 18 * 16)
    half_width = dice.roll(*_fixed(STROKE, 32))
    away = _project(_SINE[angle - _TURN // 4], _SINE[angle]) // (_TURN // 16) - distance[:, None]
    return np.clip((half_width[:, None] - np.abs(away)) * 8 + 128, 0, 256) * (half_width[:, None] > 0)
