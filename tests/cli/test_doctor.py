import json

import pytest
from typer.testing import CliRunner

from derain_cli.cli.app import app
from derain_cli.cli.doctor import REQUIREMENT, _state_of
from derain_cli.version import __version__


def test_every_section_is_there() -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert list(facts) == ["versions", "device", "memory", "weights", "folders", "extras"]
    assert facts["versions"]["derain"] == __version__
    assert facts["versions"]["torch"] != "missing"
    assert facts["device"]["precision auto"] in ("fp32", "bf16")
    text = CliRunner().invoke(app, ["doctor"]).stdout
    assert all(f"{section}:\n" in text for section in facts)


def test_a_folder_that_cannot_be_read_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DERAIN_DATA", f"/{'a' * 300}")
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 0, result.stderr
    assert "cannot be read: File name too long" in json.loads(result.stdout)["folders"]["data sets"]


def test_what_is_missing_comes_with_the_line_that_installs_it() -> None:
    assert _state_of("rain", ["numpy", "no-such-package"]) == (
        "missing no-such-package: pip install 'derain-cli[rain]'"
    )
    assert _state_of("rain", ["numpy"]).startswith("numpy ")


def test_extras_are_read_from_what_the_package_requires() -> None:
    match = REQUIREMENT.match('pillow-heif>=1.0; extra == "heic"')
    assert match is not None
    assert match.groups() == ("pillow-heif", "heic")
    assert REQUIREMENT.match("torch>=2.6") is None
