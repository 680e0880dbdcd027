"""Data sets from the Hub: its real client against a small Hub on this machine."""

import importlib.util
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from derain_cli.cli.app import app
from derain_cli.datasets.layouts import find_pairs
from derain_cli.datasets.origins import ORIGINS, Origin
from derain_cli.datasets.pulling import pull_dataset, read_source
from derain_cli.errors import DatasetError, UnavailableError, UsageError

HUB = Path(__file__).parents[1] / "checkpoints" / "test_hub.py"
spec = importlib.util.spec_from_file_location("local_hub_of_datasets", HUB)
local_hub = importlib.util.module_from_spec(spec)
spec.loader.exec_module(local_hub)
running_hub, hub_server = local_hub.running_hub, local_hub.hub_server

REPO = "me/rainset"


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 40, 3)).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "png")
    return content.getvalue()


def files(count: int = 2) -> dict[str, bytes]:
    return {
        f"{side}/{number}.png": png(number)
        for side in ("rainy", "clean")
        for number in range(count)
    }


@pytest.fixture
def published(hub_server):
    commit = hub_server.repositories.setdefault(REPO, local_hub.Repository()).commit(**files())
    return hub_server, commit


def test_a_set_is_pulled_whole_and_notes_where_it_is_from(published, tmp_path):
    _, commit = published
    folder, source = pull_dataset(f"hf:{REPO}", tmp_path)
    assert folder == tmp_path / "rainset"
    assert (source.repo, source.revision, len(source.files)) == (REPO, commit, 4)
    assert len(find_pairs(folder)) == 2
    assert read_source(folder) == source


def test_pulled_again_it_keeps_to_its_commit_and_mends_what_is_damaged(published, tmp_path):
    hub, commit = published
    folder, _ = pull_dataset(f"hf:{REPO}", tmp_path)
    (folder / "rainy/1.png").write_bytes(b"damaged")
    (folder / "clean/0.png").unlink()
    hub.repositories[REPO].commit(**{"rainy/9.png": png(9)})
    before = len(hub.downloads())
    again, source = pull_dataset(f"hf:{REPO}", tmp_path)
    assert source.revision == commit
    assert len(hub.downloads()) == before + 2
    assert (again / "rainy/1.png").read_bytes() == png(1)
    assert not (again / "rainy/9.png").exists()
    newest, _ = pull_dataset(f"hf:{REPO}@main", tmp_path)
    assert (newest / "rainy/9.png").exists()


def test_a_download_that_was_cut_off_goes_on(published, tmp_path):
    hub, _ = published
    hub.cuts = [50]
    folder, _ = pull_dataset(f"hf:{REPO}", tmp_path)
    assert len(find_pairs(folder)) == 2
    assert (folder / "clean/1.png").read_bytes() == png(1)


def test_a_file_that_is_not_what_the_hub_states_is_refused(published, tmp_path):
    hub, _ = published
    digest = hub.store(png(1))
    hub.large_files[digest] = png(1)[:-1] + b"!"
    with pytest.raises(DatasetError, match="arrived damaged"):
        pull_dataset(f"hf:{REPO}", tmp_path)
    assert not (tmp_path / "rainset/rainy/1.png").exists()


def test_a_known_set_is_pulled_by_its_name(published, tmp_path, monkeypatch):
    monkeypatch.setitem(ORIGINS, "rain12", Origin(hub=REPO))
    result = CliRunner().invoke(app, ["datasets", "pull", "rain12", "--data-root", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(tmp_path / "rain12")
    assert f"4 files of {REPO}@" in result.stderr
    listed = CliRunner().invoke(app, ["datasets", "list", "--json", "--data-root", str(tmp_path)])
    (line,) = [
        line for line in map(json.loads, listed.stdout.splitlines()) if line["name"] == "rain12"
    ]
    assert line["bytes"] > 0


def test_what_cannot_be_had_is_one_line_with_a_way_out(hub_server, tmp_path):
    with pytest.raises(UnavailableError, match=r"no copy of 'rain100h' .* see https://www"):
        pull_dataset("rain100h", tmp_path)
    with pytest.raises(UsageError, match="unknown data set 'rain100x'"):
        pull_dataset("rain100x", tmp_path)
    with pytest.raises(UsageError, match="not of the form hf:org/repo"):
        pull_dataset("hf:rain", tmp_path)
    with pytest.raises(UsageError, match="'me/rain--set' is no name that the Hub allows"):
        pull_dataset("hf:me/rain--set", tmp_path)
    with pytest.raises(UnavailableError, match="the Hub has no data set 'me/gone'"):
        pull_dataset("hf:me/gone", tmp_path)
    assert not list(tmp_path.glob("*/*.png"))


def test_a_command_of_its_own_reaches_for_the_hub(tmp_path):
    """Tests before this one have loaded parts of the Hub's client that a new process has not."""
    words = [sys.executable, "-m", "derain_cli", "datasets", "pull", f"hf:{REPO}"]
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "DERAIN_DATA": str(tmp_path)}
    ended = subprocess.run(words, env=offline, capture_output=True, text=True, check=False)
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"error: cannot download data set '{REPO}': ")
    assert ended.returncode == 4
