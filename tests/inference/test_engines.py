"""Engines other than torch: the same image, kept on disk, refused where they are not there."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from derain_cli.checkpoints.files import save_checkpoint
from derain_cli.errors import CheckpointError, UsageError
from derain_cli.inference import engine_cache, engines
from derain_cli.inference.derainer import Derainer
from derain_cli.inference.engine_cache import Slot, engine_folder
from derain_cli.inference.engines import choose_engine
from derain_cli.inference.facts import NetworkFacts
from derain_cli.models import MODELS, build_model

needs = {
    "openvino": pytest.mark.skipif(not engines.find_spec("openvino"), reason="no openvino"),
    "onnx": pytest.mark.skipif(
        not all(map(engines.find_spec, ("onnxruntime", "onnx", "onnxscript"))), reason="no onnx"
    ),
}
OTHERS = [pytest.param(name, marks=mark) for name, mark in needs.items()]
# Writing a network for ONNX Runtime takes ten seconds: the documents' test does it once.
OTHERS_QUICK = [
    pytest.param(name, marks=[mark, pytest.mark.slow] if name == "onnx" else mark)
    for name, mark in needs.items()
]
FACTS = NetworkFacts("tiny", "menet", {}, 16, 32, 81, "", 8, 400.0, "ab" * 32, "1")


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One folder for all tests here: exporting a network takes seconds."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DERAIN_CACHE", str(folder))
        yield folder / "engines"


@pytest.fixture(scope="module")
def tiny_menet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network that averages something over the whole image, and visibly so."""
    torch.manual_seed(0)
    model = build_model("menet", {"width": 8, "residual_blocks": 1})
    nn.init.normal_(model.to_residual.weight, std=0.5)
    model.attention.weigh.norm.weight.data.fill_(100)
    path = tmp_path_factory.mktemp("menet") / "tiny.safetensors"
    save_checkpoint(path, model, "menet", {})
    return path


def photo(height: int, width: int) -> np.ndarray:
    rainy = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    rainy[: height // 2] //= 4  # halves that want different attention
    return rainy


@pytest.mark.parametrize("engine", OTHERS_QUICK)
def test_an_engine_gives_torchs_image_whole_and_in_tiles_and_is_kept(
    engine: str, tiny_menet: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in cache.glob(f"{engine}-*"):
        file.unlink()
    phases: list[str] = []
    other = Derainer.load(tiny_menet, engine=engine, threads=1, on_phase=phases.append)
    assert (other.engine.name, other.device, other.precision) == (engine, "cpu", "fp32")
    assert phases == [f"preparing tiny for {engines.TITLES[engine]}, once"]
    monkeypatch.setattr(engines, "_prepare", None)  # what is kept is taken from here on
    for size, tile in (((1, 3), None), ((150, 203), None), ((203, 150), 64)):
        rainy = photo(*size)
        wanted = Derainer.load(tiny_menet, tile=tile)(rainy)
        kept = Derainer.load(tiny_menet, engine=engine, tile=tile, threads=1)
        assert np.abs(kept(rainy).astype(int) - wanted).max() <= 1
        assert size == (1, 3) or np.abs(wanted.astype(int) - rainy).mean() > 1
    stack = np.random.default_rng(0).random((2, 3, 37, 50), np.float32)
    wanted = Derainer.load(tiny_menet).derain_levels(stack)
    np.testing.assert_allclose(other.derain_levels(stack), wanted, atol=1 / 255)
    assert len(list(cache.glob(f"{engine}-*"))) == 1


def test_memory_of_tiles_is_given_back_after_a_large_image(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released: list[int] = []
    derainer = Derainer.load(tiny_checkpoint, tile=32)
    monkeypatch.setattr(derainer.engine, "release", lambda: released.append(1))
    monkeypatch.setattr("derain_cli.inference.derainer.LARGE", 60 * 40)
    derainer(photo(60, 40))
    assert not released
    derainer(photo(61, 40))
    assert released


@needs["openvino"]
def test_a_kept_network_that_is_damaged_or_another_builds_is_made_again(
    tiny_menet: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Derainer.load(tiny_menet, engine="openvino")
    (file,) = cache.glob("openvino-*")
    whole = file.read_bytes()
    header, _, blobs = whole.partition(b"\n")
    other = json.loads(header) | {"depends": {"engine": "openvino 1"}}
    # An OpenVINO of the same version that was built otherwise may refuse sound content.
    alien = json.loads(header) | {"sha256": hashlib.sha256(b"x" * len(blobs)).hexdigest()}
    monkeypatch.setattr(engines, "_prepare", lambda *given: "made again")
    assert engines.load_engine(tiny_menet, "openvino").engine.name == "openvino"
    for content in (
        b"",
        whole[:-1],
        whole[:-9] + b"?" + whole[-8:],
        json.dumps(other).encode() + b"\n" + blobs,
        json.dumps(alien).encode() + b"\n" + b"x" * len(blobs),
    ):
        file.write_bytes(content)
        assert engines.load_engine(tiny_menet, "openvino") == "made again"
    file.write_bytes(whole)


def test_an_engine_of_another_distribution_has_a_version_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`onnxruntime-gpu` holds the module `onnxruntime`."""
    (tmp_path / "strange_engine.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(engine_cache.PACKAGES, "onnx", "strange_engine")
    by_time = Slot("ab" * 32, "onnx", "fp32")
    os.utime(tmp_path / "strange_engine.py", (1, 1))
    changed = Slot("ab" * 32, "onnx", "fp32")
    info = tmp_path / "strange_engine_gpu-2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strange-engine-gpu\nVersion: 2\n")
    (info / "top_level.txt").write_text("strange_engine\n")
    named = Slot("ab" * 32, "onnx", "fp32")
    assert len({slot.path for slot in (by_time, changed, named)}) == 3
    (tmp_path / "stray_folder").mkdir()
    monkeypatch.setitem(engine_cache.PACKAGES, "onnx", "stray_folder")
    with pytest.raises(UsageError, match="'stray_folder' is no engine"):
        Slot("ab" * 32, "onnx", "fp32")


def test_what_a_network_is_kept_under_depends_on_all_that_it_is_made_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda package: f"{package} 1")
    one = Slot("ab" * 32, "onnx", "fp32")
    assert one.path.parent == engine_folder()
    one.write(FACTS, [b"first", b"", b"third"])
    assert one.read() == (FACTS, [b"first", b"", b"third"])
    others = [Slot("cd" * 32, "onnx", "fp32"), Slot("ab" * 32, "openvino", "fp32")]
    others.append(Slot("ab" * 32, "onnx", "bf16"))
    for name, value in (("_cpu", "another"), ("_code", "changed"), ("__version__", "0")):
        with monkeypatch.context() as patch:
            wanted = value if name == "__version__" else (lambda value=value: value)
            patch.setattr(f"derain_cli.inference.engine_cache.{name}", wanted)
            others.append(Slot("ab" * 32, "onnx", "fp32"))
    assert len({slot.path for slot in (one, *others)}) == len(others) + 1
    for other in others:
        other.path.write_bytes(one.path.read_bytes())  # as if names collided
        assert other.read() is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "reads format 1"),
        ({"padding_multiple": 10**9}, "padding_multiple '1000000000' is impossible"),
        ({"padding_multiple": True}, "padding_multiple 'True' is impossible"),
        ({"bytes_per_pixel": float("nan")}, "bytes_per_pixel 'nan' is impossible"),
        ({"more": 1}, "unexpected keyword"),
    ],
)
def test_a_strangers_facts_are_checked(change: dict[str, object], words: str) -> None:
    fields = json.loads(FACTS.to_json())
    assert NetworkFacts.from_json(json.dumps(fields), "x.onnx") == FACTS
    with pytest.raises(
        CheckpointError, match=f"'x.onnx' does not say what network it is: .*{words}"
    ):
        NetworkFacts.from_json(json.dumps(fields | change), "x.onnx")


@pytest.mark.parametrize("engine", ["openvino", "onnx"])
def test_an_absent_engine_names_the_line_that_installs_it(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    words = rf"'{engine}' needs .* which is not installed: pip install 'derain-cli\[{engine}\]'"
    with pytest.raises(UsageError, match=words):
        choose_engine(engine, "auto", "auto")
    assert choose_engine("auto", "cpu", "auto") == "torch"


def test_auto_is_openvino_where_it_is_installed_and_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: name)
    monkeypatch.setattr(engines, "choose_device", lambda name: "cpu" if name == "cpu" else "cuda")
    monkeypatch.setattr(engines, "cpu_multiplies_bf16", lambda: False)
    assert choose_engine("auto", "cpu", "auto") == "openvino"
    assert choose_engine("auto", "auto", "auto") == "torch"
    for precision in ("bf16", "fp16"):
        assert choose_engine("auto", "cpu", precision) == "torch"
    assert choose_engine("auto", "cpu", "auto", compile=True) == "torch"
    for wanted, device, precision, words in (
        ("tensorrt", "cpu", "fp32", "unknown engine 'tensorrt'"),
        ("onnx", "cuda", "fp32", "engine 'onnx' runs on the CPU alone, not on device 'cuda'"),
        ("onnx", "cpu", "bf16", "engine 'onnx' does not compute in bf16: take engine torch"),
        ("openvino", "cpu", "fp16", "engine 'openvino' does not compute in fp16"),
    ):
        with pytest.raises(UsageError, match=words):
            choose_engine(wanted, device, precision)
    with pytest.raises(UsageError, match="compile is for engine 'torch', not for 'onnx'"):
        choose_engine("onnx", "cpu", "fp32", compile=True)


def test_auto_falls_back_to_torch_where_a_network_cannot_be_exported(tmp_path: Path) -> None:
    model = build_model("rdmc-supernet", {"widths": (2, 2, 2, 2, 2), "stages": 1})
    save_checkpoint(tmp_path / "super.safetensors", model, "rdmc-supernet", {})
    for name, mark in needs.items():
        if not mark.args[0]:
            with pytest.raises(UsageError, match="'super' cannot be exported: which edges are"):
                Derainer.load(tmp_path / "super.safetensors", engine=name)
    assert Derainer.load(tmp_path / "super.safetensors", engine="auto").engine.name == "torch"


@pytest.fixture
def finds_another_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let a function of `engines` find that what was exported gives another image."""

    def differ(*_: object) -> None:
        raise CheckpointError("engine 'openvino' changes the result")

    monkeypatch.setenv("DERAIN_CACHE", str(tmp_path))
    return lambda function: monkeypatch.setattr(engines, function, differ)


@needs["openvino"]
def test_auto_takes_torch_where_the_engine_gives_another_image(
    tiny_menet: Path, finds_another_image: Callable[[str], None]
) -> None:
    finds_another_image("_make")  # after seconds of exporting, which the slow test does not spare
    said: list[str] = []
    derainer = Derainer.load(tiny_menet, engine="auto", on_phase=said.append)
    assert derainer.engine.name == "torch"
    assert "engine 'openvino' changes the result; taking engine torch" in said


@pytest.mark.slow
@needs["openvino"]
def test_an_engine_by_name_that_gives_another_image_is_refused(
    tiny_menet: Path, finds_another_image: Callable[[str], None]
) -> None:
    finds_another_image("check_equal")
    with pytest.raises(CheckpointError, match="changes the result"):
        Derainer.load(tiny_menet, engine="openvino")


@pytest.mark.parametrize("engine", OTHERS_QUICK)
def test_a_single_photo_needs_no_torch_once_its_network_is_kept(
    engine: str, tiny_menet: Path, tmp_path: Path, make_image
) -> None:
    Derainer.load(tiny_menet, engine=engine)
    source = make_image(tmp_path / "photo.png", (60, 40))
    code = """
        import sys
        from derain_cli.__main__ import main
        try:
            main()
        except SystemExit as end:
            assert not end.code, end.code
        heavy = "torch", "onnx", "openvino_telemetry", "openvino.tools.ovc"
        heavy = [name for name in heavy if name in sys.modules]
        assert heavy == [], heavy
    """
    code = "\n".join(line[8:] for line in code.splitlines())
    words = [source, "-m", tiny_menet, "--engine", engine, "-o", tmp_path / "out.png", "--json"]
    words += ["--precision", "fp32"]  # a network in bf16, where the processor has it, is kept apart
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[0])["engine"] == engine


@needs["openvino"]
def test_a_network_in_memory_runs_in_an_engine_as_well(cache: Path) -> None:
    before = set(cache.glob("*"))
    torch.manual_seed(0)
    model, rainy = build_model("unet"), photo(33, 50)
    wanted = Derainer(model, MODELS["unet"], name="unet")(rainy)
    derained = Derainer(model, MODELS["unet"], name="unet", engine="openvino")(rainy)
    assert np.abs(derained.astype(int) - wanted).max() <= 1
    assert set(cache.glob("*")) == before
