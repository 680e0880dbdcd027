"""Engines by name: which one a run takes, and a network made ready for it."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from derain_cli.checkpoints.resolving import load_model, resolve_weights, shown_name
from derain_cli.errors import CheckpointError, UnavailableError, UsageError, did_you_mean
from derain_cli.inference import openvino_engine
from derain_cli.inference.devices import choose_device, choose_precision, cpu_multiplies_bf16
from derain_cli.inference.engine import Engine, Tileable
from derain_cli.inference.engine_cache import Slot
from derain_cli.inference.facts import NetworkFacts
from derain_cli.inference.onnx_engine import OnnxEngine
from derain_cli.inference.pixels import pad_to_multiple
from derain_cli.whole_files import sha256_of

if TYPE_CHECKING:  # torch takes a second to load, and the other engines do without
    from torch import nn

    from derain_cli.models import ModelEntry

# Each engine, and the package it needs at least. The extras have the engines' names.
ENGINES = {"torch": "torch", "openvino": "openvino", "onnx": "onnxruntime"}
MADE_OF_ONNX = ("onnx", "onnxscript")  # what writing an ONNX graph takes besides
EXPORTED = {".onnx": "onnx", ".xml": "openvino"}  # files of `derain models export`, by engine
# Largest difference from the network itself that a result may have: a level of 8 bits in fp32.
MOST_DIFFERENCE = {"fp32": 1 / 255, "bf16": 4 / 255}
PROBE = 43, 70  # height and width of the random image on which that is checked

TITLES = {"openvino": "OpenVINO", "onnx": "ONNX Runtime"}

OnPhase = Callable[[str], None]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Request:
    """Request for an engine: its name, precision and threads, and its stand-in in fp32."""

    engine: str
    precision: str
    threads: int | None
    in_fp32: Callable[[], Engine]

    def openvino(self, compiled: Sequence[Any], facts: NetworkFacts) -> Engine:
        """OpenVINO's engine with these compiled networks."""
        return openvino_engine.OpenVinoEngine(compiled, facts, self.precision, self.in_fp32)


@dataclass(frozen=True)
class LoadedEngine:
    """An engine with a network, what tiles must know of it, and its name."""

    engine: Engine
    entry: Tileable
    name: str


def choose_engine(wanted: str, device: str, precision: str, *, compile: bool = False) -> str:
    """The engine that a run takes.

    Args:
        wanted: "auto" or a key of `ENGINES`.
        device: As of `Derainer`.
        precision: As of `Derainer`.
        compile: Whether torch is to compile the network.

    Raises:
        UsageError: Unknown, not installed, or not made for this device or precision.
    """
    if wanted == "auto":
        return "openvino" if _openvino_fits(device, precision, compile) else "torch"
    if wanted not in ENGINES:
        raise UsageError(f"unknown engine {wanted!r}. {did_you_mean(wanted, ['auto', *ENGINES])}")
    if wanted == "torch":
        return wanted
    require_installed(wanted, ENGINES[wanted])
    if device not in ("auto", "cpu"):
        raise UsageError(f"engine {wanted!r} runs on the CPU alone, not on device {device!r}")
    if compile:
        raise UsageError(f"compile is for engine 'torch', not for {wanted!r}")
    if precision == "fp16" or (wanted == "onnx" and precision == "bf16"):
        raise UsageError(f"engine {wanted!r} does not compute in {precision}: take engine torch")
    return wanted


def _openvino_fits(device: str, precision: str, compile: bool) -> bool:
    if compile or find_spec("openvino") is None:
        return False
    native = precision in ("auto", "fp32") or (precision == "bf16" and cpu_multiplies_bf16())
    return native and choose_device(device) == "cpu"


def require_installed(extra: str, *packages: str) -> None:
    """Refuse to go on without the packages of an extra.

    Raises:
        UsageError: One is missing; says what installs it.
    """
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise UsageError(
            f"{extra!r} needs {missing[0]!r}, which is not installed: "
            f"pip install 'derain-cli[{extra}]'"
        )


def network_engine(
    model: "nn.Module",
    entry: "ModelEntry",
    wanted: str,
    *,
    name: str,
    device: str,
    precision: str,
    compile: bool = False,
    threads: int | None = None,
) -> Engine:
    """A network in memory, made ready for an engine; the arguments are those of `Derainer`.

    Raises:
        UsageError: As of `choose_engine`, or the network cannot be exported.
        CheckpointError: The engine gives another image than the network itself.
    """
    _check_threads(threads)
    chosen = choose_engine(wanted, device, precision, compile=compile)
    if chosen == "torch":
        return _torch_engine(model, entry, name, device, precision, compile, threads)
    if chosen == "onnx":
        require_installed("onnx", *MADE_OF_ONNX)
    again = partial(network_engine, model, entry, chosen, name=name, device="cpu", threads=threads)
    request = _Request(
        chosen, choose_precision(precision, "cpu"), threads, partial(again, precision="fp32")
    )
    return _make(request, model, entry, name)[0]


def load_engine(
    name: str | os.PathLike[str],
    wanted: str = "torch",
    *,
    device: str = "auto",
    precision: str = "fp32",
    compile: bool = False,
    threads: int | None = None,
    on_phase: OnPhase = log.info,
) -> LoadedEngine:
    """Trained weights ready to run; torch is loaded only where the engine needs it.

    Args:
        name: As of `Derainer.load`.
        wanted: As of `choose_engine`.
        device: As of `Derainer`.
        precision: As of `Derainer`.
        compile: As of `Derainer`.
        threads: As of `Derainer`.
        on_phase: Told what takes a while before it begins.

    Raises:
        UsageError: As of `choose_engine`.
        UnavailableError: No such weights.
        CheckpointError: The file is damaged or not one of ours.
    """
    _check_threads(threads)
    if Path(name).suffix in EXPORTED:
        return _load_exported(Path(name), wanted, device, precision, compile, threads)
    chosen = choose_engine(wanted, device, precision, compile=compile)
    if chosen == "torch":
        return _load_torch(name, device, precision, compile, threads, on_phase)
    again = partial(load_engine, name, chosen, device="cpu", threads=threads, on_phase=on_phase)
    request = _Request(chosen, choose_precision(precision, "cpu"), threads, lambda: again().engine)
    path = resolve_weights(name)
    sha256 = sha256_of(path)
    slot = Slot(sha256, chosen, request.precision)
    kept = slot.read()
    revived = _revive(request, *kept) if kept else None
    if kept and revived:
        return LoadedEngine(revived, kept[0], shown_name(name))
    try:
        return _prepare(request, name, sha256, slot, on_phase)
    except (UsageError, CheckpointError) as error:  # not to be exported, or another image
        if wanted != "auto":
            raise
        # A damaged checkpoint ends there as well, with the same error.
        on_phase(f"{error}; taking engine torch")
        return _load_torch(name, device, precision, compile, threads, on_phase)


def _load_torch(
    name: str | os.PathLike[str],
    device: str,
    precision: str,
    compile: bool,
    threads: int | None,
    on_phase: OnPhase,
) -> LoadedEngine:
    from derain_cli.models import entry_of  # noqa: PLC0415 (heavy)

    on_phase(f"loading {shown_name(name)}")
    loaded = load_model(name)
    entry = entry_of(loaded.model)
    engine = _torch_engine(loaded.model, entry, loaded.name, device, precision, compile, threads)
    return LoadedEngine(engine, entry, loaded.name)


def _prepare(
    request: _Request, name: str | os.PathLike[str], sha256: str, slot: Slot, on_phase: OnPhase
) -> LoadedEngine:
    """A network exported and compiled, and kept for the next run."""
    from derain_cli.models import entry_of  # noqa: PLC0415 (heavy)

    if request.engine == "onnx":
        require_installed("onnx", *MADE_OF_ONNX)
    on_phase(f"preparing {shown_name(name)} for {TITLES[request.engine]}, once")
    loaded = load_model(name)
    entry = entry_of(loaded.model)
    engine, facts, parts = _make(request, loaded.model, entry, loaded.name, sha256)
    slot.write(facts, parts)
    return LoadedEngine(engine, entry, loaded.name)


def _make(
    request: _Request, model: "nn.Module", entry: "ModelEntry", name: str, sha256: str = ""
) -> tuple[Engine, NetworkFacts, list[bytes]]:
    """An engine for a network, compared with it, and the parts that make the engine again.

    Raises:
        UsageError: The network cannot be exported.
        CheckpointError: The engine gives another image than the network itself.
    """
    from derain_cli.inference import graphs  # noqa: PLC0415 (torch)

    program, facts = graphs.trace(model, entry, name, sha256)
    if request.engine == "openvino":
        compiled = openvino_engine.compile_graph(
            graphs.to_openvino(program, facts), facts, request.precision, request.threads
        )
        parts = openvino_engine.packed(compiled)
        engine = request.openvino(compiled, facts)
    else:
        parts = [graphs.to_onnx(program, facts)]
        engine = OnnxEngine(parts[0], name, request.threads)
    check_equal(engine, _torch_engine(model, entry, name, "cpu", "fp32", False, None), facts)
    return engine, facts, parts


def _revive(request: _Request, facts: NetworkFacts, parts: Sequence[bytes]) -> Engine | None:
    """The engine of kept parts; None where the engine does not take them any more."""
    try:
        if request.engine == "onnx":
            return OnnxEngine(parts[0], facts.name, request.threads)
        compiled = openvino_engine.unpacked(parts, request.precision, request.threads)
        return request.openvino(compiled, facts)
    except Exception as error:  # noqa: BLE001 (whatever bytes of another build make it raise)
        log.info("a kept network is compiled again: %s", error)
        return None


def _load_exported(
    path: Path, wanted: str, device: str, precision: str, compile: bool, threads: int | None
) -> LoadedEngine:
    """The network of a file that `derain models export` wrote."""
    its_own = EXPORTED[path.suffix]
    if wanted not in ("auto", its_own):
        raise UsageError(f"{str(path)!r} is for engine {its_own!r}, not for {wanted!r}")
    if not path.is_file():
        raise UnavailableError(f"no exported network {str(path)!r} here")
    chosen = choose_engine(its_own, device, precision, compile=compile)
    if chosen == "onnx":
        onnx = OnnxEngine(path.read_bytes(), str(path), threads)
        return LoadedEngine(onnx, onnx.facts, path.stem)
    graph, facts = openvino_engine.read_graph(path)
    again = partial(_load_exported, path, wanted, "cpu", "fp32", False, threads)
    request = _Request(chosen, choose_precision(precision, "cpu"), threads, lambda: again().engine)
    compiled = openvino_engine.compile_graph(graph, facts, request.precision, threads)
    return LoadedEngine(request.openvino(compiled, facts), facts, path.stem)


def check_equal(engine: Engine, reference: Engine, facts: NetworkFacts) -> None:
    """Compare an engine with torch on one random image of odd sides.

    Raises:
        CheckpointError: They differ by more than rounding.
    """
    random = np.random.default_rng(0).random((1, 3, *PROBE), np.float32)
    rainy = pad_to_multiple(random, facts.padding_multiple)
    wanted = reference.derain(rainy, "fp32")
    difference = float(np.abs(engine.derain(rainy, engine.precision) - wanted).max())
    # NaN passes: damaged weights are reported by the first image that goes through.
    if difference > MOST_DIFFERENCE[engine.precision] * max(1.0, float(np.abs(wanted).max())):
        raise CheckpointError(
            f"engine {engine.name!r} changes the result of {facts.name!r} by {difference:.3g} "
            "(of 1): take engine torch"
        )


def _check_threads(threads: int | None) -> None:
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, not {threads}")


def _torch_engine(
    model: "nn.Module",
    entry: "ModelEntry",
    name: str,
    device: str,
    precision: str,
    compile: bool,
    threads: int | None,
) -> Engine:
    from derain_cli.inference.torch_engine import TorchEngine  # noqa: PLC0415 (heavy)

    return TorchEngine(
        model,
        entry,
        name=name,
        device=device,
        precision=precision,
        compile=compile,
        threads=threads,
    )
