"""The package as its reader meets it: quick to import, and documents that are true."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

import derain_cli
from derain_cli.cli.app import app
from derain_cli.training.loggers import LOGGERS

ROOT = Path(__file__).parent.parent


def run_python(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_importing_the_package_and_its_command_line_loads_nothing_heavy():
    heavy = "{'torch', 'cv2', 'huggingface_hub', 'tifffile'}"
    code = f"import sys, derain_cli, derain_cli.cli.app; print({heavy} & set(sys.modules))"
    assert run_python(code).strip() == "set()"


def test_drawing_an_svg_loads_neither_torch_nor_the_hub_client():
    heavy = "{'torch', 'cv2', 'huggingface_hub', 'matplotlib'}"
    drawings = (
        "derain_cli.drawings.curves, derain_cli.drawings.histogram, derain_cli.training.curves"
    )
    code = f"import sys, {drawings}; print({heavy} & set(sys.modules))"
    assert run_python(code).strip() == "set()"


def test_root_holds_few_files_and_one_folder_a_subject():
    package = Path(derain_cli.__file__).parent
    files = [path for path in package.iterdir() if path.suffix == ".py"]
    folders = [path for path in package.iterdir() if (path / "__init__.py").exists()]
    assert len(files) <= 8
    assert len(folders) <= 19


def test_readmes_python_section_runs(tmp_path):
    """On a small image, in a folder of its own."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    prepare = "import numpy, PIL.Image\n"
    prepare += "PIL.Image.fromarray(numpy.zeros((48, 64, 3), 'uint8')).save('photo.jpg')\n"
    command = [sys.executable, "-c", prepare + code]
    subprocess.run(command, check=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (tmp_path / "photo_derained.jpg").exists()


def test_every_extra_that_a_hint_names_exists():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    hinted = {
        extra
        for path in (ROOT / "derain_cli").rglob("*.py")
        for group in re.findall(r"derain-cli\[([\w,-]+)\]", path.read_text(encoding="utf-8"))
        for extra in group.split(",")
    }
    hinted |= set(LOGGERS)  # whose extras have their names
    assert {"heic", "plots"} <= hinted <= set(declared["optional-dependencies"])


def test_every_error_class_is_public():
    errors = {name for name in vars(derain_cli.errors) if name.endswith("Error")}
    assert errors <= set(derain_cli.__all__)


def test_every_public_name_loads():
    for name in derain_cli.__all__:
        assert getattr(derain_cli, name) is not None
    assert set(derain_cli.__all__) <= set(dir(derain_cli))
    with pytest.raises(AttributeError, match="no attribute 'derian'"):
        derain_cli.derian  # noqa: B018 (the access is the test)


def test_no_public_name_hides_a_submodule():
    submodules = {path.stem for path in Path(derain_cli.__file__).parent.iterdir()}
    assert not submodules & set(derain_cli.__all__)


def test_changelog_has_this_version_on_top():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    (first, *_) = re.findall(r"^## \[(\d[^\]]*)\]", text, re.MULTILINE)
    assert first == derain_cli.__version__


def test_readme_states_the_test_command_that_ci_runs():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("<!-- test-command -->") == 1
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "<!-- test-command -->" in script


def test_readme_names_no_option_that_does_not_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    ours = [line for line in text.splitlines() if not line.startswith("torchrun")]
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", "\n".join(ours)))
    known = set()
    commands = [
        "derain",
        "eval",
        "train",
        "serve",
        "reproduce",
        "models info",
        "finetune-real",
        "datasets synth",
        "datasets verify",
    ]
    for command in commands:
        shown = CliRunner().invoke(app, [*command.split(), "--help"], terminal_width=200)
        assert shown.exit_code == 0, shown.output
        known |= set(re.findall(r"--[a-z][a-z-]+", shown.stdout))
    assert named - known == set()
