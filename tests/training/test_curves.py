"""Learning curves as one SVG: well-formed, complete, and in the right places."""

import json
import xml.etree.ElementTree as ET

import pytest

from derain_cli.drawings.curves import Curve, draw
from derain_cli.drawings.svg import Axis, round_numbers
from derain_cli.errors import NothingToDoError
from derain_cli.training.curves import plot_runs, read_curve

SVG = "{http://www.w3.org/2000/svg}"


def run_of(folder, lines):
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_runs_share_one_image_that_needs_nothing_else(tmp_path):
    logs = [{"step": step, "loss": 1 / step} for step in range(1, 200)]
    first = run_of(
        tmp_path / "a<b", [*logs, {"step": 100, "psnr": 20.0}, {"step": 199, "psnr": 31.5}]
    )
    second = run_of(tmp_path / "lone", [{"step": 50, "psnr": 25.0}])
    plot_runs([first, second], tmp_path / "deep" / "curves.svg")
    text = (tmp_path / "deep" / "curves.svg").read_text()
    root = ET.fromstring(text)
    words = [node.text for node in root.iter(f"{SVG}text")]
    assert "a<b (best 31.50 dB, step 199)" in words
    assert "lone (best 25.00 dB, step 50)" in words
    assert words.count("steps") == 2
    assert "href" not in text
    assert len(list(root.iter(f"{SVG}circle"))) == 3


def test_runs_of_one_name_are_told_apart(tmp_path):
    runs = [tmp_path / parent / "run" for parent in ("first", "second")]
    for run in runs:
        run.parent.mkdir()
        run_of(run, [{"step": 1, "loss": 0.5}])
    plot_runs(runs, tmp_path / "curves.svg")
    words = [node.text for node in ET.parse(tmp_path / "curves.svg").iter(f"{SVG}text")]
    assert {str(run) for run in runs} < set(words)


def test_steps_are_whole_numbers_and_nothing_leaves_the_image():
    root = ET.fromstring(draw([Curve("run", [(1, 20.0), (2, 20.0)], [(1, 0.5)])]))
    words = [node.text for node in root.iter(f"{SVG}text")]
    assert [word for word in words if word in ("0", "1", "2", "0.5", "1.5")][:3] == ["0", "1", "2"]
    height = float(root.get("height"))
    assert all(0 < float(node.get("y")) < height for node in root.iter(f"{SVG}text"))
    assert all(0 < float(node.get("cy")) < height for node in root.iter(f"{SVG}circle"))


def test_a_higher_psnr_is_drawn_higher():
    root = ET.fromstring(draw([Curve("run", [(0, 20.0), (10, 30.0)], [])]))
    path = next(p.get("d") for p in root.iter(f"{SVG}path") if "L" in p.get("d"))
    (x0, y0), (x1, y1) = (map(float, point.split()) for point in path[1:].split("L"))
    assert x0 < x1
    assert y0 > y1


def test_losses_below_zero_get_a_plain_axis():
    assert "loss" in draw([Curve("hcn", [], [(1, -2.5), (2, -2.9)])])


def test_one_value_is_an_axis_too():
    assert Axis(3, 3, 0, 10).at(3) == 0
    assert round_numbers(3, 3) == [3]


def test_a_folder_without_metrics_is_named(tmp_path):
    with pytest.raises(NothingToDoError, match="has no metrics to draw"):
        read_curve(tmp_path)


def test_scores_that_are_not_there_are_left_out(tmp_path):
    run = run_of(tmp_path / "run", [{"step": 1, "psnr": None}, {"step": 2, "loss": 0.5}])
    assert read_curve(run) == Curve("run", [], [(2, 0.5)])
