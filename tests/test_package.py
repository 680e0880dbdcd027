"""The package as its reader meets it: quick to import, and documents that are true."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import derain_cli

ROOT = Path(__file__).parent.parent


def run_python(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_importing_the_package_and_its_command_line_loads_nothing_heavy():
    heavy = "{'torch', 'cv2', 'huggingface_hub', 'tifffile'}"
    code = f"import sys, derain_cli, derain_cli.cli.app; print({heavy} & set(sys.modules))"
    assert run_python(code).strip() == "set()"


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
        "models info",
        "finetune-real",
        "datasets synth",
        "datasets verify",
    ]
    for command in commands:
        arguments = [sys.executable, "-m", "derain_cli", *command.split(), "--help"]
        environment = {"TERMINAL_WIDTH": "200", "COLUMNS": "200", "PATH": "/usr/bin:/bin"}
        shown = subprocess.run(
            arguments, capture_output=True, text=True, check=True, env=environment
        ).stdout
        known |= set(re.findall(r"--[a-z][a-z-]+", shown))
    assert named - known == set()
