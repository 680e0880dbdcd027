"""The page in a real Chromium, used as a person would."""

import io
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from derain_cli.cli.app import app
from tests.serve.conftest import Server

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
SWITCHES = [
    "--no-sandbox",  # CI runs as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DONE = ".thumb[aria-current=true] .mark.done"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any, server: Server) -> Iterator[Callable[..., Any]]:
    """Opens the page; fails afterwards if it logged an error or asked another host."""
    complaints: list[str] = []
    contexts = []

    def watch(request: Any) -> None:
        if not request.url.startswith((server.url, f"blob:{server.url}", "data:")):
            complaints.append(f"asked {request.url}")

    def hear(line: Any) -> None:
        # That a request failed, as a bad file's does, the browser says of itself.
        if line.type == "error" and not line.text.startswith("Failed to load resource"):
            complaints.append(line.text)

    def open_one(width: int, height: int, **settings: object) -> Any:
        size = {"width": width, "height": height}
        contexts.append(browser.new_context(viewport=size, accept_downloads=True, **settings))
        page = contexts[-1].new_page()
        page.set_default_timeout(30_000)
        page.on("request", watch)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", hear)
        page.goto(server.url)
        page.wait_for_selector("#model option", state="attached")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert complaints == []


def by_command(photo: Path, checkpoint: Path, *options: str) -> bytes:
    engine = ["-m", str(checkpoint), "-d", "cpu", "--threads", "1", "--overwrite"]
    result = CliRunner().invoke(app, ["derain", str(photo), *engine, *options])
    assert result.exit_code == 0, result.output
    return photo.with_name(f"{photo.stem}_derained{photo.suffix}").read_bytes()


def downloaded(page: Any, button: str) -> Path:
    with page.expect_download() as download:
        page.click(button)
    return Path(download.value.path())


def part_of_after(page: Any) -> str:
    style = page.locator("#pane-a .over").get_attribute("style") or ""
    return style.partition("clip-path:")[2].partition(";")[0].strip()


def test_a_photo_is_dropped_looked_at_and_downloaded(
    open_page: Callable[..., Any], photos: Path, tiny_checkpoint: Path
) -> None:
    deep = photos / "deep.tif"
    noise = np.random.default_rng(2).integers(0, 65535, (24, 32, 3), np.uint16)
    tifffile.imwrite(deep, noise, photometric="rgb")
    page = open_page(1280, 800)
    page.set_input_files("#files", [photos / "a2.jpg", photos / "a10.jpg", deep])
    page.wait_for_selector(DONE)

    # The line between before and after, by keys and by the mouse.
    assert part_of_after(page) == "inset(0px 0px 0px 50%)"
    page.focus("#handle")
    page.keyboard.press("ArrowRight")
    assert page.get_attribute("#handle", "aria-valuenow") == "52"
    assert part_of_after(page) == "inset(0px 0px 0px 52%)"
    pane = page.locator("#pane-a").bounding_box()
    middle = pane["y"] + pane["height"] / 3
    page.mouse.move(pane["x"] + 0.52 * pane["width"], middle)
    page.mouse.down()
    page.mouse.move(pane["x"] + 0.25 * pane["width"], middle, steps=4)
    page.mouse.up()
    assert page.get_attribute("#handle", "aria-valuenow") == "25"

    # 100 %: a pixel of the image on one of the screen.
    page.keyboard.press("1")
    assert page.get_attribute("#zoom-full", "aria-pressed") == "true"
    assert "scale(1)" in page.get_attribute("#pane-a .before", "style")
    page.keyboard.press("0")

    for view, shown in (("r", "#panes.rain"), ("t", "#pane-b:not([hidden])"), ("s", "#handle")):
        page.keyboard.press(view)
        page.wait_for_selector(shown)

    assert downloaded(page, "#download").read_bytes() == by_command(
        photos / "a2.jpg", tiny_checkpoint
    )
    page.fill("#strength", "50")
    half = by_command(photos / "a2.jpg", tiny_checkpoint, "--strength", "0.5", "--save-rain")
    assert downloaded(page, "#download").read_bytes() == half
    page.keyboard.press("r")
    rain = (photos / "a2_derained_rain.jpg").read_bytes()
    assert downloaded(page, "#download-rain").read_bytes() == rain

    # A 16-bit TIFF, which no browser shows, is shown all the same, and comes back as one.
    page.keyboard.press("]")
    page.keyboard.press("]")
    page.wait_for_selector(DONE)
    page.wait_for_selector("#pane-a img.before.ready")
    page.fill("#strength", "100")
    with zipfile.ZipFile(io.BytesIO(downloaded(page, "#download-all").read_bytes())) as all_of_them:
        assert all_of_them.testzip() is None
        names = ["a2_derained.jpg", "a10_derained.jpg", "deep_derained.tif"]
        assert all_of_them.namelist() == names
        for photo, name in zip(("a2.jpg", "a10.jpg", "deep.tif"), names, strict=True):
            assert all_of_them.read(name) == by_command(photos / photo, tiny_checkpoint)


def test_a_folder_keeps_its_tree_and_a_bad_file_does_not_stop_it(
    open_page: Callable[..., Any], photos: Path
) -> None:
    (photos / "below" / "torn.jpg").write_bytes(b"not an image")
    page = open_page(1280, 800)
    page.set_input_files("#folder", photos)
    page.wait_for_selector(".thumb[title='photos/below/torn.jpg'] .mark.failed")
    content = downloaded(page, "#download-all").read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert sorted(archive.namelist()) == [
            "photos/a10_derained.jpg",
            "photos/a2_derained.jpg",
            "photos/below/b_derained.png",
        ]
    page.click(".thumb[title='photos/below/torn.jpg']")
    assert "torn.jpg" in page.inner_text("#status-text")
    page.wait_for_selector("#retry:visible")


def test_a_phone_shows_everything_without_scrolling_sideways(
    open_page: Callable[..., Any], photos: Path
) -> None:
    page = open_page(390, 844, is_mobile=True, has_touch=True, color_scheme="dark")
    for _ in range(2):
        width = page.evaluate("() => document.documentElement.scrollWidth")
        assert width == 390
        page.set_input_files("#files", [photos / "a2.jpg", photos / "a10.jpg"])
        page.wait_for_selector(DONE)
    assert page.locator("#handle").bounding_box()["x"] >= 0
    page.keyboard.press("r")
    elements = ["#zoom-full", "#model", "#strength", "#download", "#download-rain", "#download-all"]
    for element in (*elements, ".thumb"):
        box = page.locator(element).first.bounding_box()
        assert box["x"] >= 0, element
        assert box["x"] + box["width"] <= 390, element
        assert box["height"] >= 28, element


def test_the_keyboard_alone_reaches_everything(open_page: Callable[..., Any], photos: Path) -> None:
    page = open_page(1280, 800)
    page.set_input_files("#files", photos / "a2.jpg")
    page.wait_for_selector("#handle:visible")
    reached = set()
    page.focus(".brand")
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("() => document.activeElement.id || document.activeElement.name"))
    wanted = {"add", "help-button", "pane-a", "handle", "zoom-full", "view", "model", "strength"}
    assert wanted | {"download"} <= reached
    page.keyboard.press("Delete")
    page.wait_for_selector("#welcome:visible")
