"""Names and paths to verified files; nothing foreign is ever loaded."""

import hashlib
import json
import pickle
import threading

import pytest
import torch
from safetensors.torch import load_file, save_file

from derain_cli.checkpoints.catalogue import DEFAULT_WEIGHTS, list_weights, weights_folder
from derain_cli.checkpoints.files import read_metadata, save_checkpoint
from derain_cli.checkpoints.resolving import (
    download_weights,
    find_weights,
    load_model,
    resolve_weights,
)
from derain_cli.errors import CheckpointError, ResourceError, UnavailableError, UsageError
from derain_cli.models import build_model
from derain_cli.whole_files import write_whole

TINY = {"widths": [2, 2, 2, 2, 2], "stages": 1, "connections": [[3, 9]]}


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.safetensors"
    model = build_model("rdmc", TINY)
    save_checkpoint(path, model, "rdmc", {"step": "3"})
    return path, model


def test_round_trip_is_bit_equal(tiny):
    path, model = tiny
    loaded = load_model(path)
    assert (loaded.architecture, loaded.name) == ("rdmc", "tiny")
    assert loaded.model.config == model.config
    assert not loaded.model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.model.state_dict()[name])


def test_checkpoint_describes_itself(tiny):
    metadata = read_metadata(tiny[0])
    assert metadata["format"] == "1"
    assert metadata["step"] == "3"
    assert json.loads(metadata["model_config"])["stages"] == 1


def test_run_folder_means_its_best_checkpoint(tiny):
    path, model = tiny
    folder = path.parent
    with pytest.raises(UnavailableError, match=r"no best\.safetensors"):
        resolve_weights(folder)
    save_checkpoint(folder / "last.safetensors", model, "rdmc", {})
    assert resolve_weights(folder).name == "last.safetensors"
    save_checkpoint(folder / "best.safetensors", model, "rdmc", {})
    assert resolve_weights(folder).name == "best.safetensors"
    assert load_model(folder).name == folder.name


@pytest.fixture
def own_weights(tmp_path, tiny, monkeypatch):
    """A weights folder of the user's: rdmc-real (default), and rdmc-snow without its file."""
    folder = tmp_path / "weights"
    folder.mkdir()
    content = tiny[0].read_bytes()
    (folder / "real.safetensors").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    (folder / "weights.toml").write_text(
        f'[rdmc-real]\nmodel = "rdmc"\nfile = "real.safetensors"\nsha256 = "{digest}"\n'
        'default = true\nsummary = "Photos"\n'
        f'[rdmc-snow]\nmodel = "rdmc"\nfile = "snow.safetensors"\nsha256 = "{digest}"\n'
    )
    monkeypatch.setenv("DERAIN_WEIGHTS", str(folder))
    return folder


def test_entries_and_bare_names(own_weights):
    first, second = list_weights()
    assert (first.name, first.default, first.about) == ("rdmc-real", True, {"summary": "Photos"})
    assert (second.default, second.on_hub) == (False, None)
    for name in ("rdmc", "rdmc-real"):
        loaded = load_model(name)
        assert (loaded.name, loaded.path) == (name, own_weights / "real.safetensors")


def test_damaged_bundled_file_is_refused(own_weights):
    path = own_weights / "real.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"real\.safetensors' is damaged or not the file"):
        load_model("rdmc")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rdmc-reel", r"unknown model 'rdmc-reel'\. Did you mean 'rdmc-real'\? Known: rdmc, rdmc-"),
        (
            "rdmc-snow",
            r"'rdmc-snow' are not here: put 'snow\.safetensors' into .*Bundled: rdmc-real",
        ),
        ("unet", "network 'unet' has no weights here: train some"),
        ("me/rainfree", "a repository of the Hub is named 'hf:me/rainfree'"),
        ("gone/best.safetensors", "no checkpoint 'gone/best.safetensors'"),
    ],
)
def test_what_is_not_there_says_the_way_out(own_weights, name, message):
    with pytest.raises(UnavailableError, match=message) as caught:
        load_model(name)
    assert caught.value.exit_code == 4
    with pytest.raises(UnavailableError, match=message):
        download_weights(name)


def test_a_network_with_weights_but_no_default_lists_them(own_weights):
    folder = weights_folder()
    path = folder / "weights.toml"
    path.write_text(path.read_text().replace("default = true", ""))
    with pytest.raises(UnavailableError, match=r"'rdmc' has no default weights; name some: rdmc-"):
        load_model("rdmc")


def test_names_on_the_hub_have_one_form():
    with pytest.raises(UsageError, match="is not of the form hf:org/repo"):
        find_weights("hf:rainfree")


def test_a_folder_without_checkpoint_does_not_hide_a_name(own_weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rdmc").mkdir()
    assert resolve_weights("rdmc").parent == own_weights


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[x", "is not TOML"),
        ('[x]\nmodel = "rdmc"', "entry 'x' of .* lacks 'file'"),
        (
            '[x]\nmodel = "rdmc"\nfile = "f"\nsha256 = "0"\nrevision = "main"',
            "revision 'main': what is downloaded by name is pinned to a commit",
        ),
    ],
)
def test_broken_table_of_weights(own_weights, text, message):
    (own_weights / "weights.toml").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        list_weights()


def test_half_precision_is_stored_and_float32_loaded(tmp_path, tiny):
    path = tmp_path / "half.safetensors"
    state = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in tiny[1].state_dict().items()
    }
    save_file(state, path, read_metadata(tiny[0]))
    loaded = load_model(path).model.state_dict()
    for name, tensor in tiny[1].state_dict().items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.allclose(loaded[name].float(), tensor.float(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    "config",
    [
        {"widths": [10**7] * 5},
        {"widths": [64, 64, 64, 64, 64], "stages": 10**9},
        {"widths": [-1, 2, 2, 2, 2]},
        {"widths": []},
        {"width": 3},
        [1],
    ],
)
def test_hostile_config_is_refused_before_it_takes_memory(tmp_path, tiny, config):
    path = tmp_path / "hostile.safetensors"
    metadata = read_metadata(tiny[0]) | {"model_config": json.dumps(config)}
    save_file(tiny[1].state_dict(), path, metadata)
    with pytest.raises(CheckpointError, match=r"hostile\.safetensors' describes no network"):
        load_model(path)


def test_a_folder_without_weights_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("DERAIN_WEIGHTS", str(tmp_path))
    with pytest.raises(
        UnavailableError, match=r"weights\.toml' lists no weights; \$DERAIN_WEIGHTS"
    ):
        load_model("rdmc-real")


def test_a_network_built_beside_is_not_counted(tiny):
    """Two threads load at once: the limit is that of the file and of its own thread."""
    stop = threading.Event()

    def build() -> None:
        while not stop.is_set():
            build_model("rdmc", {"widths": [32, 32, 32, 32, 32], "stages": 1})

    beside = threading.Thread(target=build)
    beside.start()
    try:
        for _ in range(3):
            load_model(tiny[0])
    finally:
        stop.set()
        beside.join()


def test_git_lfs_pointer_is_named_as_such(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(CheckpointError, match="Git LFS pointer: run `git lfs pull`"):
        load_model(path)


class Boom:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_hostile_pickle_is_refused_unopened(tmp_path):
    path, trace = tmp_path / "model.pth", tmp_path / "executed"
    path.write_bytes(pickle.dumps(Boom(trace)))
    with pytest.raises(CheckpointError, match="never loaded"):
        load_model(path)
    assert not trace.exists()


def test_foreign_truncated_and_newer_files_are_refused(tmp_path, tiny):
    foreign = tmp_path / "foreign.safetensors"
    save_file({"x": torch.zeros(2)}, foreign)
    with pytest.raises(CheckpointError, match="not saved by this program"):
        load_model(foreign)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(tiny[0].read_bytes()[:-40])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors"):
        load_model(cut)
    newer = tmp_path / "newer.safetensors"
    metadata = read_metadata(tiny[0]) | {"format": "9"}
    save_file(tiny[1].state_dict(), newer, metadata)
    with pytest.raises(CheckpointError, match="format '9'"):
        load_model(newer)


def test_tensors_that_do_not_fit_the_config_are_refused(tmp_path, tiny):
    path = tmp_path / "odd.safetensors"
    save_file({"x": torch.zeros(2)}, path, read_metadata(tiny[0]))
    with pytest.raises(CheckpointError, match="does not fit"):
        load_model(path)
    tensors = load_file(tiny[0])
    save_file(tensors | {"x": torch.zeros(2)}, path, read_metadata(tiny[0]))
    with pytest.raises(CheckpointError, match="does not fit"):
        load_model(path)


def test_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_whole(path, b"old")
    with pytest.raises(TypeError):
        write_whole(path, "not bytes")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ResourceError, match="cannot write"):
        write_whole(tmp_path / "missing" / "file", b"new")


def test_written_files_can_be_read_by_others(tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    write_whole(tmp_path / "file", b"new")
    assert (tmp_path / "file").stat().st_mode == plain.stat().st_mode


@pytest.fixture
def bundled(monkeypatch):
    """The weights that are released with this program."""
    monkeypatch.delenv("DERAIN_WEIGHTS", raising=False)


@pytest.mark.usefixtures("bundled")
def test_every_bundled_file_is_the_one_that_was_released():
    entries = list_weights()
    assert DEFAULT_WEIGHTS in {entry.name for entry in entries}
    for entry in entries:
        path = resolve_weights(entry.name)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == entry.sha256
        assert read_metadata(path)["model"] == entry.model
    assert {path.name for path in weights_folder().glob("*.safetensors")} == {
        entry.file for entry in entries
    }


@pytest.mark.usefixtures("bundled")
def test_every_bundled_entry_tells_how_it_was_made():
    entries = list_weights()
    for entry in entries:
        assert entry.name.startswith(f"{entry.model}-")
        for fact in ("summary", "data", "command", "steps", "seed", "seconds", "licence"):
            assert entry.about.get(fact) is not None, (entry.name, fact)
    defaults = [entry.model for entry in entries if entry.default]
    assert sorted(defaults) == sorted({entry.model for entry in entries})
    assert resolve_weights("nimbus") == resolve_weights(DEFAULT_WEIGHTS)
