"""One photo through several networks, as one page or one image."""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

TEMPLATE = Path(__file__).with_name("photo_comparison.html")
QUALITY = 95
LONGEST_JPEG = 65500  # pixels of a side
CHANGED = 2  # levels; less is rounding
GAP, CAPTION = 8, 28  # pixels between and above the images of a sheet
PER_ROW = 3


@dataclass(frozen=True)
class View:
    """What one network makes of the photo, or the photo itself.

    Attributes:
        name: What it is called.
        pixels: `(height, width, 3)` uint8.
        remark: What it says below its name.
    """

    name: str
    pixels: NDArray[np.uint8]
    remark: str = ""


def describe_change(rainy: NDArray[np.uint8], derained: NDArray[np.uint8], seconds: float) -> str:
    """How much a network changed, and how long it took.

    Example:
        >>> black = np.zeros((2, 2, 3), np.uint8)
        >>> describe_change(black, black + np.uint8(10), 0.5)
        '100 % of the pixels changed, by 10.0 levels on average; 0.50 s'
    """
    change = np.abs(rainy.astype(np.int16) - derained).max(axis=2)
    share, mean = float((change > CHANGED).mean()), float(change.mean())
    percent = f"{100 * share:.0f} % of the pixels changed"
    return f"{percent}, by {mean:.1f} levels on average; {seconds:.2f} s"


def comparison_page(title: str, views: Sequence[View]) -> str:
    """A page that holds everything: the views in one place, to be flipped, zoomed and moved."""
    tabs, figures = [], []
    for number, view in enumerate(views, start=1):
        name, remark = html.escape(view.name), html.escape(view.remark)
        tabs.append(f'<button type="button">{number} {name}</button>')
        figures.append(
            f'<figure><img alt="{name}" src="{_data_address(view.pixels)}">'
            f"<figcaption><b>{name}</b> {remark}</figcaption></figure>"
        )
    page = TEMPLATE.read_text(encoding="utf-8")
    for mark, text in (
        ("@title@", html.escape(title)),
        ("@tabs@", "".join(tabs)),
        ("@figures@", "".join(figures)),
    ):
        page = page.replace(mark, text)
    return page


def comparison_sheet(views: Sequence[View]) -> Image.Image:
    """All views in rows of three, each below its name."""
    height, width = views[0].pixels.shape[:2]
    columns = min(PER_ROW, len(views))
    rows = -(-len(views) // columns)
    size = (columns * (width + GAP) - GAP, rows * (height + CAPTION + GAP) - GAP)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=CAPTION // 2 + 2)
    for index, view in enumerate(views):
        left = index % columns * (width + GAP)
        top = index // columns * (height + CAPTION + GAP)
        draw.text((left + 4, top + 4), view.name, fill="black", font=font)
        sheet.paste(Image.fromarray(view.pixels), (left, top + CAPTION))
    return sheet


def _data_address(pixels: NDArray[np.uint8]) -> str:
    file, format = io.BytesIO(), "JPEG" if max(pixels.shape) <= LONGEST_JPEG else "PNG"
    Image.fromarray(pixels).save(file, format, quality=QUALITY, subsampling=0)
    content = base64.b64encode(file.getvalue()).decode()
    return f"data:image/{format.lower()};base64,{content}"
