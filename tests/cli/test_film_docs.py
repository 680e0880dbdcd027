"""Every command of the pages on films and on choosing weights runs."""

import re
import shlex
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from derain_cli.cli.app import app

av = pytest.importorskip("av", reason="the extra `video` is not installed")

DOCS = Path(__file__).parents[2] / ".github" / "docs"
ENDLESS = "--watch"  # has a test of its own


@pytest.fixture
def place(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that the pages name, and a tiny network under the names of the real ones."""
    content, weights = tiny_checkpoint.read_bytes(), tmp_path / "weights"
    weights.mkdir()
    (weights / "tiny.safetensors").write_bytes(content)
    entry = f'model = "rdmc"\nfile = "tiny.safetensors"\nsha256 = "{sha256(content).hexdigest()}"\n'
    names = ("nimbus-real", "rdmc-real", "menet-real")
    (weights / "weights.toml").write_text("".join(f"[{name}]\n{entry}" for name in names))
    (tmp_path / "mixed").mkdir()
    for path in (tmp_path / "clip.mp4", tmp_path / "mixed" / "other.mp4"):
        with av.open(str(path), "w") as out:
            stream = out.add_stream("libx264", rate=25)
            stream.width = stream.height = 32
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 90, np.uint8))
            frame.pts, frame.time_base = 0, Fraction(1, 25)
            out.mux([*stream.encode(frame), *stream.encode(None)])
    image = Image.new("RGB", (16, 12), "gray")
    for name in ("photo.jpg", "mixed/photo.jpg"):
        image.save(tmp_path / name)
    image.save(tmp_path / "moving.gif", save_all=True, append_images=[Image.new("RGB", (16, 12))])
    monkeypatch.setenv("DERAIN_WEIGHTS", str(weights))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("page", ["films.md", "choosing.md"])
def test_every_command_runs(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    lines = "".join(re.findall(r"```console\n(.*?)```", text, re.DOTALL)).splitlines()
    assert lines
    for line in lines:
        words = shlex.split(line, comments=True)
        if ENDLESS in words:
            continue
        result = CliRunner().invoke(app, words[1:])
        assert result.exit_code == 0, f"{line}: {result.stderr} {result.exception!r}"
