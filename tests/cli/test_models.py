"""`derain models`: what there is, where it is, and whether it is whole.

Pulling and pushing is in test_hub.py, beside the Hub that they need.
"""

import hashlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from derain_cli.checkpoints.catalogue import DEFAULT_WEIGHTS, list_weights
from derain_cli.cli.app import app
from derain_cli.models import MODELS


def models(*words: object):
    return CliRunner().invoke(app, ["models", *map(str, words)], env={"COLUMNS": "200"})


def json_lines(*words: object) -> list[dict[str, object]]:
    result = models(*words, "--json")
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def weights(tmp_path, tiny_checkpoint, monkeypatch) -> Path:
    """Weights of the user's: rdmc-tiny is there, rdmc-far on the Hub, rdmc-lost nowhere."""
    folder = tmp_path / "weights"
    folder.mkdir()
    content = tiny_checkpoint.read_bytes()
    (folder / "tiny.safetensors").write_bytes(content)
    entry = f'model = "rdmc"\nsha256 = "{hashlib.sha256(content).hexdigest()}"\n'
    (folder / "weights.toml").write_text(
        f'[rdmc-tiny]\n{entry}file = "tiny.safetensors"\ndefault = true\nsummary = "For tests"\n'
        "seconds = 60\nvalidation = { a = 20.5 }\n"
        f'[rdmc-far]\n{entry}file = "far.safetensors"\nrevision = "{"0" * 40}"\n'
        f'[rdmc-lost]\n{entry}file = "lost.safetensors"\n'
        "[rdmc-tiny.scores]\nset = { psnr = 30.5 }\n"
    )
    monkeypatch.setenv("DERAIN_WEIGHTS", str(folder))
    return folder


def test_list_says_where_each_is_and_which_networks_have_none(weights):
    rows = {row["name"]: row for row in json_lines("list")}
    assert {name: rows[name]["where"] for name in ("rdmc-tiny", "rdmc-far", "rdmc-lost")} == {
        "rdmc-tiny": "bundled",
        "rdmc-far": "on the Hub",
        "rdmc-lost": "missing",
    }
    untrained = {name for name, row in rows.items() if row["where"] == "untrained"}
    assert untrained == MODELS.keys() - {"rdmc"}
    table = models("list").stdout
    (line,) = [line for line in table.splitlines() if "rdmc-tiny" in line]
    assert "For tests" in line
    assert "(on the Hub)" in next(line for line in table.splitlines() if "rdmc-far" in line)


def test_list_helps_to_choose():
    """The weights of this checkout: a header, the default marked once and first, then by use."""
    rows = json_lines("list")
    assert [row["name"] for row in rows if row["recommended"]] == [rows[0]["name"]]
    assert rows[0]["name"] == DEFAULT_WEIGHTS
    head, *lines = models("list").stdout.splitlines()
    for title in ("name", "s/MP", "Rain100L", "Rain100H", "DDN-SIRR", "dry", "MB"):
        assert title in head
    assert lines[0].startswith(f"{DEFAULT_WEIGHTS} (default)")
    assert sum("(default)" in line for line in lines) == 1
    here = [row for row in rows if row["where"] == "bundled"]
    harmless = [row["name"] for row in here if row["name"].endswith("-real") and "harm" not in row]
    assert [row["name"] for row in here][: len(harmless)] == harmless
    assert rows[0]["seconds_per_megapixel"] > 0
    assert rows[0]["dry_psnr"] > 20
    for row in here:
        assert row["megabytes"] > 0, row["name"]


def test_info_of_a_network_and_of_its_weights(weights):
    (facts,) = json_lines("info", "rdmc")
    assert facts["parameters"] == 247_587
    assert facts["tile_overlap"] == MODELS["rdmc"].tile_overlap
    assert [card["name"] for card in facts["weights"]] == ["rdmc-tiny", "rdmc-far", "rdmc-lost"]
    assert facts["weights"][1]["hub"].endswith(f"@{'0' * 40}:far.safetensors")
    lines = models("info", "rdmc-tiny").stdout.splitlines()
    (shape,) = json_lines("info", weights / "tiny.safetensors")
    assert f"parameters: {shape['parameters']:,}" in lines  # its own, not those of `rdmc`
    assert shape["parameters"] < 10_000
    (far,) = json_lines("info", "rdmc-far")
    assert far["parameters"] == 247_587
    assert "scores of set: psnr 30.5" in lines
    assert "validation of a: 20.5" in lines
    assert not any("rdmc-far" in line for line in lines)


def test_info_of_a_network_without_weights_and_of_a_file(weights, tiny_checkpoint):
    (facts,) = json_lines("info", "unet")
    assert (facts["model"], facts["weights"]) == ("unet", [])
    (facts,) = json_lines("info", tiny_checkpoint)
    assert facts["parameters"] < 10_000
    assert facts["weights"][0]["file"] == str(tiny_checkpoint)
    result = models("info", "umet")
    assert (result.exit_code, "unknown model 'umet'" in result.stderr) == (4, True)


def test_path_is_of_what_is_here(weights):
    result = models("path", "rdmc")
    assert Path(result.stdout.strip()) == weights / "tiny.safetensors"
    result = models("path", "rdmc-far")
    assert (result.exit_code, result.stdout) == (4, "")
    assert "run `derain models pull rdmc-far`" in result.stderr


def test_verify_names_what_is_damaged(weights, tmp_path):
    assert models("verify").stdout.split() == ["rdmc-tiny", "ok"]
    path = weights / "tiny.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    result = models("verify")
    assert result.exit_code == 4
    assert "rdmc-tiny" in result.stdout
    assert "is damaged" in result.stdout
    (tmp_path / "x.safetensors").write_bytes(b"x")
    result = models("verify", "rdmc-far", tmp_path / "x.safetensors", "--json")
    assert result.exit_code == 4
    errors = [json.loads(line)["error"] for line in result.stdout.splitlines()]
    assert errors[0] == "not here"
    assert "is not a safetensors checkpoint" in errors[1]
    path.unlink()
    assert models("verify").exit_code == 3


def test_bundle_prints_the_entry_that_it_wrote(weights, tiny_checkpoint, tmp_path):
    score = {"event": "score", "dataset": "set", "group": "", "protocol": "y", "images": 2}
    scores = tmp_path / "scores.jsonl"
    scores.write_text(json.dumps(score | {"model": "rdmc-new", "psnr": 30.25}))
    words = ["bundle", tiny_checkpoint, "rdmc-new", "--set", "summary=New = best", "--default"]
    result = models(*words, "--scores", scores)
    assert result.exit_code == 0, result.stderr
    assert 'summary = "New = best"' in result.stdout.splitlines()
    entry = next(entry for entry in list_weights() if entry.name == "rdmc-new")
    assert entry.about["scores"] == {"set": {"protocol": "y", "images": 2, "psnr": 30.25}}
    assert Path(models("path", "rdmc").stdout.strip()).name == "rdmc-new.safetensors"
    result = models("bundle", tiny_checkpoint, "rdmc-new", "--half")  # other bytes
    assert "rdmc-new: a new file; dropped scores of the old one" in result.stderr
    result = models("bundle", tiny_checkpoint, "rdmc-new", "--set", "summary")
    assert (result.exit_code, "--set 'summary' is not FIELD=TEXT" in result.stderr) == (2, True)


def test_a_known_harm_is_said_when_the_weights_run(weights, tmp_path, make_image):
    table = (weights / "weights.toml").read_text()
    harmful = table.replace("seconds = 60", 'seconds = 60\nharm = "makes skies white"')
    (weights / "weights.toml").write_text(harmful)
    photo = str(make_image(tmp_path / "photo.png"))
    for words in (["derain", photo, "-m", "rdmc"], ["derain", photo, "-m", "rdmc-tiny"]):
        result = CliRunner().invoke(app, [*words, "--overwrite"])
        assert f"{words[-1]}: makes skies white\n" in result.stderr
        assert CliRunner().invoke(app, [*words, "--overwrite", "--quiet"]).stderr == ""
    assert "makes skies white" in models("list").stdout


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_an_import_never_replaces_the_checkpoint_itself(tmp_path, overwrite):
    theirs = tmp_path / "theirs.safetensors"
    theirs.write_bytes(b"of another program")
    words = ["models", "import", str(theirs), "-m", "prenet", *overwrite]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2
    assert "is the checkpoint itself: name another --output" in refused.stderr
    assert theirs.read_bytes() == b"of another program"


def test_a_folder_is_no_checkpoint_to_import() -> None:
    result = models("import", ".", "-m", "prenet")
    assert result.exit_code == 2
    assert result.stderr == "error: '.' is a folder: name a checkpoint in it\n"
