"""The images of a search are well-formed SVG that shows what it should."""

from xml.etree import ElementTree

import pytest

from derain_cli.connections.diagram import history_image, network_image
from derain_cli.connections.file import FoundConnections
from derain_cli.connections.space import SearchSpace
from derain_cli.models.rdmc import CANDIDATES, all_connections

SVG = "{http://www.w3.org/2000/svg}"
ALPHAS = [[0.3 * i for i in range(10)], [2.0, *([0.0] * 9)]]


@pytest.fixture(scope="module")
def found() -> FoundConnections:
    return FoundConnections(SearchSpace(), ALPHAS)


def test_network_shows_every_edge_as_thick_as_its_share(found):
    root = ElementTree.fromstring(network_image(found))
    paths = [path for path in root.iter(f"{SVG}path") if "data-edge" in path.attrib]
    widths = {path.get("data-edge"): float(path.get("stroke-width")) for path in paths}
    assert set(widths) == {f"{source}-{target}" for source, target in all_connections()}
    for edges, shares in zip(CANDIDATES, found.shares, strict=True):
        shown = [widths[f"{source}-{target}"] for source, target in edges]
        thinnest, thickest = min(shown), max(shown)
        for width, share in zip(shown, shares, strict=True):
            place = (share - min(shares)) / (max(shares) - min(shares))
            expected = thinnest + place * (thickest - thinnest)
            assert width == pytest.approx(expected, abs=2e-3)
        assert thickest > thinnest


def test_chosen_edges_are_marked_and_drawn_over_the_others(found):
    root = ElementTree.fromstring(network_image(found))
    kinds = [path.get("class") for path in root.iter(f"{SVG}path") if "data-edge" in path.attrib]
    assert kinds == ["candidate"] * 16 + ["chosen"] * 4
    chosen = {
        path.get("data-edge") for path in root.iter(f"{SVG}path") if path.get("class") == "chosen"
    }
    assert chosen == {f"{source}-{target}" for source, target in found.edges}


def test_network_names_layers_edges_and_cost(found):
    text = "".join(ElementTree.fromstring(network_image(found)).itertext())
    assert all(f"layer {layer}" in text for layer in range(1, 11))
    assert all(f"{source}→{target}" in text for source, target in all_connections())
    assert f"{found.cost / 1e9:.3f} GMAC" in text


def test_history_has_a_line_per_edge_that_stays_in_its_panel(found):
    history = [
        (step, [[a * step / 90 for a in row] for row in ALPHAS]) for step in range(0, 91, 30)
    ]
    root = ElementTree.fromstring(history_image(history, found.edges))
    lines = {line.get("data-edge"): line.get("points") for line in root.iter(f"{SVG}polyline")}
    assert set(lines) == {f"{source}-{target}" for source, target in all_connections()}
    for points in lines.values():
        places = [tuple(map(float, point.split(","))) for point in points.split()]
        assert [x for x, _ in places] == sorted(x for x, _ in places)
        assert len(places) == 4
        assert all(60 <= y <= 480 for _, y in places)
    ends = [float(lines["1-6"].split()[i].split(",")[1]) for i in (0, -1)]
    assert ends[1] < ends[0]  # its share rose: up the image


def test_history_of_a_single_row_is_drawn(found):
    root = ElementTree.fromstring(history_image([(0, ALPHAS)], found.edges))
    assert len(list(root.iter(f"{SVG}polyline"))) == 20


def test_both_images_say_what_each_kind_of_line_is(found):
    history = [(0, [[0.0] * 10, [0.0] * 10]), (9, ALPHAS)]
    images = (network_image(found), history_image(history, found.edges))
    for image, more in zip(images, ({"always there"}, set()), strict=True):
        root = ElementTree.fromstring(image)
        words = {node.text for node in root.iter(f"{SVG}text")}
        assert {"chosen skip-up", "chosen skip-down", "not chosen"} | more <= words
        drawn = {
            node.get("stroke")
            for kind in ("path", "polyline")
            for node in root.iter(f"{SVG}{kind}")
            if node.get("data-edge") or node.get("class") == "fixed"
        }
        explained = {
            path.get("stroke") for path in root.iter(f"{SVG}path") if path.get("class") == "legend"
        }
        assert drawn == explained
