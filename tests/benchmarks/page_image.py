"""The image of the page in README: the page in Chromium, as a person would see it.

    python -m tests.benchmarks.page_image PHOTO PHOTO PHOTO   # .github/docs/images/page.jpg

Rain of our own maker is painted on the photos, which must be free to show; `derain serve` derains
them with the default weights, and the first is shown. With `--phone` the page of a phone in the
dark is shown instead, and with `--view rain` the rain. Needs playwright and Debian's chromium.
"""

import argparse
import io
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from derain_cli.rain.painting import RAIN_KINDS, paint
from tests.benchmarks.readme_image import TARGET, small
from tests.serve.conftest import start_server, stop_server

SCREENS: dict[str, dict[str, Any]] = {
    "desk": {"viewport": {"width": 1280, "height": 800}},
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "is_mobile": True,
        "has_touch": True,
        "color_scheme": "dark",
    },
}
PATIENCE = 600_000  # milliseconds: two busy cores take their time


def screenshot(url: str, photos: list[Path], screen: dict[str, Any], view: str) -> Image.Image:
    """The page once every photo is done."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        path = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_context(**screen).new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(url)
        page.set_input_files("#files", photos)
        done = page.locator(".mark.done")
        done.nth(len(photos) - 1).wait_for()
        page.locator(f"input[name=view][value={view}]").check(force=True)
        page.wait_for_selector("#status", state="hidden")
        content = page.screenshot()
        browser.close()
    return Image.open(io.BytesIO(content)).convert("RGB")


def main() -> None:
    """Write the image."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--rain", default="heavy", choices=sorted(RAIN_KINDS))
    parser.add_argument("--width", type=int, default=900, help="of the photos")
    parser.add_argument("--view", default="slider", choices=["slider", "rain", "two"])
    parser.add_argument("--phone", action="store_true")
    parser.add_argument("-o", "--output", type=Path, default=TARGET.with_name("page.jpg"))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rainy = []
        for seed, photo in enumerate(chosen.photos):
            clean, rng = small(photo, chosen.width), np.random.default_rng(seed)
            rain = RAIN_KINDS[chosen.rain](*clean.shape[:2], rng)
            rainy.append(Path(folder) / f"{photo.stem}.jpg")
            Image.fromarray(paint(clean, rain)).save(rainy[-1], quality=92)
        server = start_server("--device", "cpu")
        try:
            screen = SCREENS["phone" if chosen.phone else "desk"]
            shown = screenshot(server.url, rainy, screen, chosen.view)
        finally:
            stop_server(server)
    if not chosen.phone:
        shown = shown.resize((1000, 625), Image.Resampling.LANCZOS)
    shown.save(chosen.output, quality=86, optimize=True, progressive=True)
    print(f"{chosen.output}: {chosen.output.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
