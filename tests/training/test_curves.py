"""Learning curves in one file: complete, legible in a narrow range, and for any log."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from derain_cli.drawings.curves import Curve, draw, figure_of
from derain_cli.drawings.svg import Axis, round_numbers
from derain_cli.errors import NothingToDoError
from derain_cli.training.curves import plot_runs, read_curve

pytest.importorskip("matplotlib", reason="needs the extra plots")
SVG = "{http://www.w3.org/2000/svg}"


def run_of(folder, lines):
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def words_of(path):
    return {node.text for node in ET.parse(path).iter(f"{SVG}text")}


def test_runs_share_one_image_that_needs_nothing_else(tmp_path):
    logs = [{"step": step, "loss": 1 / step} for step in range(1, 200)]
    first = run_of(
        tmp_path / "a$<$b", [*logs, {"step": 100, "psnr": 20.0}, {"step": 199, "psnr": 31.5}]
    )
    second = run_of(tmp_path / "_lone", [{"step": 50, "psnr": 25.0}])
    plot_runs([first, second], tmp_path / "deep" / "curves.svg")
    words = words_of(tmp_path / "deep" / "curves.svg")
    assert {"a$<$b (best 31.50 dB, step 199)", "_lone (best 25.00 dB, step 50)"} < words
    assert {"validation PSNR, dB", "training loss", "steps"} < words
    assert "http" not in (tmp_path / "deep" / "curves.svg").read_text().split("<defs>", 1)[1]


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux alone")
def test_a_name_that_is_no_text_is_drawn_escaped(tmp_path):
    run = run_of(tmp_path / os.fsdecode(b"a\xff"), [{"step": 1, "psnr": 20.0}])
    plot_runs([run], tmp_path / "curves.svg")
    assert r"a\udcff (best 20.00 dB, step 1)" in words_of(tmp_path / "curves.svg")


def test_runs_of_one_name_are_told_apart(tmp_path):
    runs = [tmp_path / parent / "run" for parent in ("first", "second")]
    for run in runs:
        run.parent.mkdir()
        run_of(run, [{"step": 1, "loss": 0.5}])
    plot_runs(runs, tmp_path / "curves.svg")
    assert {str(run) for run in runs} < words_of(tmp_path / "curves.svg")


@pytest.mark.parametrize(
    ("psnr", "loss"),
    [
        ([31.50, 31.52], [0.210, 0.211]),
        ([20.0, 20.0], [0.5, 0.5]),
        ([20.0, 30.0], [-2.5, -2.9]),
        ([25.0, 26.0], [0.9, 0.08]),
        ([25.0, 26.0], [5e3, 2e-5]),
    ],
)
def test_a_range_of_any_width_shows_two_ticks_or_more(psnr, loss):
    figure = figure_of([Curve("run", [*enumerate(psnr)], [*enumerate(loss)])])
    figure.canvas.draw()
    for axes in figure.axes:
        low, high = axes.get_ylim()
        ticks = zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
        shown = {label.get_text() for value, label in ticks if low <= value <= high}
        assert len(shown - {""}) >= 2
    assert all(float(label.get_text()).is_integer() for label in figure.axes[1].get_xticklabels())


def test_long_curves_are_smoothed_and_short_ones_marked():
    noisy = [(step, step % 2 + 1.0) for step in range(100)]
    above, below = figure_of([Curve("run", [(0, 20.0), (10, 30.0)], noisy)]).axes
    (short,) = above.lines
    assert (list(short.get_xdata()), list(short.get_ydata())) == ([0, 10], [20, 30])
    assert short.get_marker() == "o"
    raw, smooth = below.lines
    assert max(raw.get_ydata()) == 2
    assert max(smooth.get_ydata()) < 1.7


@pytest.mark.parametrize(
    ("kind", "start"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%P")]
)
def test_the_ending_says_the_kind(kind, start, tmp_path):
    run = run_of(tmp_path / "run", [{"step": 1, "loss": 0.5}])
    plot_runs([run], tmp_path / f"curves.{kind}")
    assert (tmp_path / f"curves.{kind}").read_bytes().startswith(start)


def test_the_same_runs_give_the_same_file():
    curves = [Curve("run", [(1, 20.0)], [(1, 0.5), (2, 0.4)])]
    assert draw(curves) == draw(curves)


def test_without_matplotlib_one_line_says_how_to_get_it(tmp_path):
    run = run_of(tmp_path / "run", [{"step": 1, "loss": 0.5}])
    code = (
        "import sys; sys.modules['matplotlib'] = None; sys.argv[1:] = ['plot', 'run']\n"
        "from derain_cli.__main__ import main; main()"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "pip install 'derain-cli[plots]'" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert [path.name for path in run.iterdir()] == ["metrics.jsonl"]


def test_one_value_is_an_axis_too():
    assert Axis(3, 3, 0, 10).at(3) == 0
    assert round_numbers(3, 3) == [3]


def test_a_folder_without_metrics_is_named(tmp_path):
    with pytest.raises(NothingToDoError, match="has no metrics to draw"):
        read_curve(tmp_path)


def test_scores_that_are_not_there_are_left_out(tmp_path):
    lines = [{"step": 1, "psnr": None}, {"step": 2, "loss": 0.5}, {"step": 3, "loss": 10**400}]
    run = run_of(tmp_path / "run", [*lines, {"step": 4, "loss": float("nan")}])
    assert read_curve(run) == Curve("run", [], [(2, 0.5)])
