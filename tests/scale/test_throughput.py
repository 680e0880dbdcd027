import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from derain_cli.cli.app import app
from derain_cli.scale.throughput import Pieces, Worker, forecast, rate_of


def test_waiting_overlaps_with_work() -> None:
    work = Pieces(decode=0.01, network=0.2, encode=0.02)
    for request in (0.0, 0.1, 1.0):
        slow = Pieces(work.decode, work.network, work.encode, request)
        assert rate_of(slow, Worker(cpus=4, devices=1)) == (5.0, "network")


def test_more_workers_are_faster_until_something_shared_is_full() -> None:
    plan = forecast(Pieces(0.01, 0.1, 0.01), Worker(price=2.0), [1, 10, 1000], 10_000)
    assert [item.bound for item in plan] == ["processors", "processors", "driver"]
    assert plan[1].rate == pytest.approx(10 * plan[0].rate)
    assert plan[1].cost == pytest.approx(plan[0].cost)
    assert plan[2].cost > plan[1].cost


def test_the_command_measures_and_predicts(photos: Path, tiny_checkpoint: Path) -> None:
    command = ["scale-plan", str(photos), "-m", str(tiny_checkpoint), "-d", "cpu"]
    result = CliRunner().invoke(app, [*command, "--workers", "1,2", "--json", "--latency", "0"])
    assert result.exit_code == 0, result.stderr
    one, two = map(json.loads, result.stdout.splitlines())
    assert two["rate"] == pytest.approx(2 * one["rate"])
    shown = CliRunner().invoke(app, [*command, "--price", "1", "--workers", "1"])
    assert "bound by" in shown.stdout
    wrong = CliRunner().invoke(app, [*command, "--workers", "1,x"])
    assert (wrong.exit_code, "must be whole numbers" in wrong.stderr) == (2, True)
    assert not list(photos.rglob("*_derained*"))
