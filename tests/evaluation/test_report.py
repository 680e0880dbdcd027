"""The HTML report: what it holds, that it needs nothing else, and that it works in a browser."""

import io
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from derain_cli.drawings.histogram import histogram
from derain_cli.evaluation.gallery import Case, choose_cases
from derain_cli.evaluation.published import published
from derain_cli.evaluation.report import Report, write_report
from derain_cli.evaluation.statistics import INPUT, Row, differences, summarise

HOSTILE = '<script>alert("1")</script>&'
BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


def image(level: int) -> np.ndarray:
    slope = np.linspace(0, 60, 96, dtype=np.uint8)[None, :, None]
    return np.broadcast_to(slope + np.uint8(level), (64, 96, 3)).copy()


def row(dataset: str, number: int, model: str, psnr: float) -> Row:
    scores = {"psnr": psnr, "ssim": 0.5 + psnr / 100 if math.isfinite(psnr) else 1.0}
    return Row(dataset, "", f"{number:03}", model, "y", scores, 0.25)


def jpeg(level: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image(level)).save(content, "jpeg", quality=95)
    return content.getvalue()


LABELS = {INPUT: "rainy"}
IMAGES = jpeg(180), jpeg(90), jpeg(10)


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    rows = [
        row("rain12", number, model, 20 + (number * 7) % 9 + 2.5 * gain)
        for number in range(9)
        for gain, model in enumerate((INPUT, "first", HOSTILE))
    ]
    rows += [row("rain12", 9, INPUT, 30), row("rain12", 9, "first", 28.5)]
    rows.append(row("rain12", 10, "first", math.inf))
    cases = [
        Case(choice.row, choice.kind, LABELS.get(choice.left, choice.left), *IMAGES)
        for choice in choose_cases(rows, "psnr", 2)
    ]
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(
        path,
        Report(
            rows,
            summarise(rows),
            differences=differences(rows),
            quotes=published(["rain12"]),
            cases=cases,
            facts={"machine": "one fact", "weights first": HOSTILE},
        ),
    )
    return path


class Page(HTMLParser):
    """Tags with their attributes, and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "input", "img", "link"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_report_is_well_formed_and_refers_to_nothing_outside(report):
    text = report.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    addresses = [
        value for _, attrs in page.tags for name, value in attrs.items() if name in {"src", "href"}
    ]
    assert addresses
    assert all(address.startswith("data:image/jpeg;base64,") for address in addresses)
    assert not re.search(r"https?:|@import|url\(", text.replace('http-equiv="', ""))
    policy = next(attrs["content"] for tag, attrs in page.tags if "http-equiv" in attrs)
    assert policy.startswith("default-src 'none'")


def test_names_are_text_never_markup(report):
    page = Page(report.read_text(encoding="utf-8"))
    assert [tag for tag, _ in page.tags].count("script") == 1


def test_quotes_are_marked_and_name_their_protocol(report):
    text = report.read_text(encoding="utf-8")
    (line,) = re.findall(
        r'<tr class="quoted">(?:(?!</tr>).)*<td>RDMC</td>.*?</tr>', text, re.DOTALL
    )
    assert "quoted from RDMC (TCSVT 2023), Table I; protocol not stated" in line
    assert ">35.90<" in line


def section(text: str, title: str) -> str:
    """A part of the page as plain text, from its heading to the next."""
    part = text.split(f"<h2>{title}", 1)[1].split("<h2>", 1)[0]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", part))


def test_images_made_worse_are_listed_with_both_scores(report):
    text = report.read_text(encoding="utf-8")
    worse = section(text, "Images made worse than the input")
    assert "rain12, first: 1 of 11 images have a worse PSNR than the untouched input" in worse
    assert "rain12 009 first 30.00 28.50 -1.50" in worse


def test_models_are_compared_where_they_differ_most(report):
    differ = section(report.read_text(encoding="utf-8"), "Images on which models differ most")
    assert " 2.50 " in differ


def test_spread_names_median_worst_and_tenths(report):
    spread = section(report.read_text(encoding="utf-8"), "PSNR: how single images lie")
    # The input's ten scores are 20 ... 28 and 30.
    assert re.search(r"rain12 \(input\) [\d.]+ … [\d.]+ 24\.50 20\.00 20\.00 30\.00", spread)


def test_facts_of_the_run_are_named(report):
    page = Page(report.read_text(encoding="utf-8"))
    assert [tag for tag, _ in page.tags].count("dt") == 2
    assert "one fact" in report.read_text(encoding="utf-8")


def test_histogram_counts_every_image_on_one_scale():
    svg = histogram({"a": [20.1, 20.2, 24.9], "b": [30.0]})
    bars = re.findall(r'class="bar" x="([\d.]+)"[^>]* height="([\d.]+)"', svg)
    heights = [float(height) for _, height in bars]
    assert heights == pytest.approx([max(heights), max(heights) / 2, max(heights) / 2])
    assert float(bars[-1][0]) > max(float(x) for x, _ in bars[:-1])
    assert ">21.73<" in svg.replace("</text>", "<")


def test_histogram_of_equal_scores_is_one_bar():
    assert histogram({"a": [25.0] * 5}).count('class="bar"') == 1


@pytest.fixture(scope="module")
def browser(report):
    pytest.importorskip("selenium", reason="needs selenium: pip install selenium")
    if not BROWSER or not DRIVER:
        pytest.skip("needs chromium and chromedriver: apt-get install chromium chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.get(report.as_uri())
    yield driver
    driver.quit()


def test_page_shows_tables_and_images_without_complaint(browser):
    text = browser.find_element("css selector", "table.scores").text
    assert "first" in text
    assert HOSTILE in text
    images = browser.find_elements("css selector", "figure.case img.right")
    assert len(images) == 8
    assert {image.get_property("naturalWidth") for image in images} == {96}
    assert all(image.size["width"] > 100 for image in images)
    assert browser.get_log("browser") == []


def pixel(browser, element, share: float) -> tuple[int, int, int]:
    """Colour of a screenshot of an element at a share of its width."""
    import io

    from PIL import Image

    shot = Image.open(io.BytesIO(element.screenshot_as_png)).convert("RGB")
    return shot.getpixel((int(shot.width * share), shot.height // 2))


def test_slider_uncovers_the_left_image(browser):
    from selenium.webdriver import ActionChains

    compare = browser.find_element("css selector", "figure.case .compare")
    browser.execute_script("arguments[0].scrollIntoView()", compare)
    slider = compare.find_element("css selector", "input[type=range]")
    middle = pixel(browser, compare, 0.4), pixel(browser, compare, 0.6)
    assert middle[0][0] > middle[1][0] + 40  # rainy (bright) on the left, derained on the right
    width = slider.size["width"]
    ActionChains(browser).drag_and_drop_by_offset(slider, int(width * 0.4), 0).perform()
    assert int(slider.get_property("value")) > 80
    assert pixel(browser, compare, 0.6)[0] > middle[1][0] + 40
    ActionChains(browser).drag_and_drop_by_offset(slider, -int(width * 0.4), 0).perform()
    assert pixel(browser, compare, 0.4)[0] < middle[0][0] - 40


def test_truth_can_be_put_on_the_left(browser):
    figure = browser.find_elements("css selector", "figure.case")[1]
    browser.execute_script("arguments[0].scrollIntoView()", figure)
    compare = figure.find_element("css selector", ".compare")
    rainy = pixel(browser, compare, 0.25)
    figure.find_element("css selector", "input[type=checkbox]").click()
    assert pixel(browser, compare, 0.25)[0] < rainy[0] - 100


def test_rows_are_sorted_by_a_click_numbers_as_numbers(browser):
    table = browser.find_element("css selector", "table.sortable")
    heads = table.find_elements("css selector", "th button")
    column = [head.get_property("innerText") for head in heads].index("PSNR")

    def shown() -> list[float]:
        read = (
            "return [...arguments[0].tBodies[0].rows].map(row => row.cells[arguments[1]].innerText)"
        )
        return [float(text) for text in browser.execute_script(read, table, column)]

    before = shown()
    browser.execute_script("arguments[0].scrollIntoView()", table)
    heads[column].click()
    assert shown() == sorted(before) != before
    heads[column].click()
    assert shown() == sorted(before, reverse=True)
    assert shown()[0] == math.inf
