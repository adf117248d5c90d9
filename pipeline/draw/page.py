"""A picture laid out in pixels: text, images and plots, drawn by matplotlib, encoded to the same bytes every time.

Only matplotlib's own copy of its font is used, never one of the system: the pictures belong to a release, and
a release must not depend on what is installed beside it. Pyplot's global state is never touched.
"""

import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import Literal

import cv2
import matplotlib as mpl
import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, get_font

_DPI = 100  # px per inch; only matters for font sizes, which are given in px here
_FONTS = Path(mpl.get_data_path()) / "fonts" / "ttf"
_UNKNOWN_GLYPH = "\N{REPLACEMENT CHARACTER}"

INK = "#1f2328"
FAINT = "#6b7280"
LINE = "#d0d7de"

RGB = UInt8[np.ndarray, "H W 3"]


class Page:
    """A white page of ``width_px × height_px``; all positions are pixels from its top left corner."""

    def __init__(self, width_px: int, height_px: int) -> None:
        self.width_px, self.height_px = width_px, height_px
        self._figure = Figure(figsize=(width_px / _DPI, height_px / _DPI), dpi=_DPI, facecolor="white")
        self._canvas = FigureCanvasAgg(self._figure)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size_px: float = 14,
        bold: bool = False,
        color: str = INK,
        align: Literal["left", "center", "right"] = "left",
    ) -> None:
        """Write one line with its middle at ``y``; never as mathematics, whatever dollar signs it holds."""
        self._figure.text(
            x / self.width_px,
            1 - y / self.height_px,
            printable(text),
            fontproperties=font(size_px, bold=bold),
            color=color,
            ha=align,
            va="center",
            parse_math=False,
        )

    def image(self, x: int, y: int, image: RGB) -> None:
        """Place an image pixel for pixel with its top left corner at ``x, y``."""
        self._figure.figimage(image, xo=x, yo=self.height_px - y - image.shape[0], origin="upper")

    def fill(self, x: int, y: int, width_px: int, height_px: int, rgb: tuple[int, int, int]) -> None:
        """Fill a rectangle."""
        self.image(x, y, np.full((height_px, width_px, 3), rgb, np.uint8))

    def plot(self, x: float, y: float, width_px: float, height_px: float) -> Axes:
        """Empty axes inside that rectangle; ticks and labels fall outside it."""
        rectangle = (
            x / self.width_px,
            1 - (y + height_px) / self.height_px,
            width_px / self.width_px,
            height_px / self.height_px,
        )
        axes = self._figure.add_axes(rectangle)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(LINE)
        return axes

    def png(self) -> bytes:
        """The page as PNG without any metadata."""
        return self._encoded(".png", cv2.IMWRITE_PNG_COMPRESSION, 6)

    def jpeg(self, quality: int = 82) -> bytes:
        """The page as JPEG without any metadata."""
        return self._encoded(".jpg", cv2.IMWRITE_JPEG_QUALITY, quality)

    def _encoded(self, suffix: str, *parameters: int) -> bytes:
        self._canvas.draw()
        rgb = np.asarray(self._canvas.buffer_rgba())[..., :3]
        _, data = cv2.imencode(suffix, rgb[..., ::-1], parameters)
        return data.tobytes()


@lru_cache(maxsize=32)
def font(size_px: float, *, bold: bool = False) -> FontProperties:
    """Matplotlib's own DejaVu Sans at a height in pixels."""
    return FontProperties(fname=str(_FONTS / _font_file(bold=bold)), size=size_px * 72 / _DPI)


@lru_cache(maxsize=4096)
def text_width_px(text: str, size_px: float, *, bold: bool = False) -> float:
    """How wide a line will be."""
    face = get_font(str(_FONTS / _font_file(bold=bold)))
    face.set_size(size_px * 72 / _DPI, _DPI)
    face.set_text(printable(text), 0.0)
    return face.get_width_height()[0] / 64  # 26.6 fixed point


def printable(text: str) -> str:
    """One line of what the font can show: no control characters, and a sign where a glyph is missing."""
    known = get_font(str(_FONTS / _font_file(bold=False)))
    shown = (" " if char.isspace() else char for char in text)
    return "".join(
        char if known.get_char_index(ord(char)) else _UNKNOWN_GLYPH
        for char in shown
        if unicodedata.category(char) not in ("Cc", "Cf", "Cs")
    )


def is_legible(text: str) -> bool:
    """Whether the font can show at least half of the text."""
    shown = printable(text).replace(" ", "")
    return bool(shown) and 2 * shown.count(_UNKNOWN_GLYPH) <= len(shown)


def shortened(text: str, width_px: float, size_px: float, *, bold: bool = False) -> str:
    """The text, or as much of its beginning as fits with an ellipsis."""
    if text_width_px(text, size_px, bold=bold) <= width_px:
        return text
    while text and text_width_px(text + "…", size_px, bold=bold) > width_px:
        text = text[:-1]
    return text.rstrip() + "…"


def wrapped(text: str, width_px: float, size_px: float, num_lines: int, *, bold: bool = False) -> list[str]:
    """The text in at most ``num_lines`` lines, broken between words; the last one shortened where it must be."""
    lines, words = [], printable(text).split()
    while words and len(lines) < num_lines - 1:
        fits = 1
        while fits < len(words) and text_width_px(" ".join(words[: fits + 1]), size_px, bold=bold) <= width_px:
            fits += 1
        lines.append(shortened(" ".join(words[:fits]), width_px, size_px, bold=bold))
        words = words[fits:]
    return [*lines, shortened(" ".join(words), width_px, size_px, bold=bold)] if words else lines


def _font_file(*, bold: bool) -> str:
    return "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
