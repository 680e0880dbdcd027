"""What a checkpoint says of its making: the commit, read from git's own files, and the machine."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from derain_cli.checkpoints.resolving import load_model
from derain_cli.cli.app import app
from derain_cli.errors import ConfigError
from derain_cli.training.origin import _cpu_model, machine, source_commit
from derain_cli.training.trainer import train
from derain_cli.version import __version__

VERSION = f"derain-cli {__version__}"


@pytest.fixture
def git(tmp_path):
    """Runs git in a repository with one commit; returns what it prints."""
    program = shutil.which("git")
    if program is None:
        pytest.skip("needs git")
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]

    def run(*words: str, folder: Path = tmp_path / "checkout") -> str:
        folder.mkdir(exist_ok=True)
        command = [program, *who, *words]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    run("init", "-q", "-b", "main")
    run("commit", "-q", "--allow-empty", "-m", "first")
    return run


def test_commit_is_what_git_says_however_it_keeps_it(git, tmp_path):
    checkout = tmp_path / "checkout"
    first = git("rev-parse", "HEAD")
    assert source_commit(checkout) == first
    git("pack-refs", "--all")
    assert not (checkout / ".git/refs/heads/main").exists()
    assert source_commit(checkout) == first
    git("commit", "-q", "--allow-empty", "-m", "second")
    second = git("rev-parse", "HEAD")
    assert source_commit(checkout) == second != first
    git("checkout", "-q", first)
    assert source_commit(checkout) == first


def test_commit_of_a_worktree(git, tmp_path):
    tree = tmp_path / "tree"
    git("worktree", "add", "-q", "-b", "other", str(tree))
    git("commit", "-q", "--allow-empty", "-m", "there", folder=tree)
    assert source_commit(tree) == git("rev-parse", "HEAD", folder=tree)
    git("pack-refs", "--all")
    assert source_commit(tree) == git("rev-parse", "HEAD", folder=tree)


def test_without_a_checkout_it_is_the_version(tmp_path):
    assert source_commit(tmp_path) == VERSION
    git = tmp_path / ".git"
    git.mkdir()
    assert source_commit(tmp_path) == VERSION
    for head in (b"", b"ref: refs/heads/unborn\n", b"\xff\xfe", b"garbage"):
        (git / "HEAD").write_bytes(head)
        assert source_commit(tmp_path) == VERSION
    shutil.rmtree(git)
    git.write_text("gitdir: /nowhere/at/all\n")
    assert source_commit(tmp_path) == VERSION


def test_machine_names_processor_threads_and_torch_but_no_host(tmp_path):
    told = machine(torch.device("cpu"))
    unit = "thread" if torch.get_num_threads() == 1 else "threads"
    assert f", {torch.get_num_threads()} {unit}, torch {torch.__version__}" in told
    assert told.split(",")[0].strip()
    assert (platform.node() or "no name") not in told
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel\t\t: 2\nmodel name\t: Some CPU @ 2 GHz\n")
    assert _cpu_model(cpuinfo) == "Some CPU @ 2 GHz"
    cpuinfo.write_text("Processor\t: ARMv8\n")
    assert _cpu_model(cpuinfo) == (platform.machine() or "unknown processor")
    assert _cpu_model(tmp_path / "none") == (platform.machine() or "unknown processor")


def test_checkpoint_of_a_run_says_both_and_models_info_shows_them(tiny_config, tmp_path):
    train(tiny_config("resnet", steps=1), tmp_path / "run")
    for file in ("last.safetensors", "best.safetensors"):
        metadata = load_model(tmp_path / "run" / file).metadata
        assert metadata["commit"] == source_commit()
        assert metadata["machine"] == machine(torch.device("cpu"))
    shown = CliRunner().invoke(app, ["models", "info", str(tmp_path / "run" / file)])
    assert shown.exit_code == 0, shown.stderr
    assert f"commit: {metadata['commit']}" in shown.stdout.splitlines()
    assert f"machine: {metadata['machine']}" in shown.stdout.splitlines()


def test_weights_without_a_state_are_not_trained_over(tiny_config, tmp_path):
    """`--resume` would begin anew and replace them: refused, and both files stay as they are."""
    config, out = tiny_config("resnet", steps=2), tmp_path / "run"
    train(config, out)
    (out / "state.pt").unlink()
    before = {path.name: path.read_bytes() for path in out.glob("*.safetensors")}
    assert before
    with pytest.raises(ConfigError, match=r"holds weights but no state\.pt to resume from"):
        train(config, out, resume=True)
    assert {path.name: path.read_bytes() for path in out.glob("*.safetensors")} == before
