"""`derain doctor`: report the installation, its abilities and what is missing."""

import importlib.metadata
import json
import os
import platform
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

PACKAGES = ("torch", "numpy", "pillow", "opencv-python", "tifffile", "safetensors")
REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+).*\bextra == ['\"]([\w-]+)['\"]")
FOR_DEVELOPERS = frozenset({"test", "dev"})


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Report what is installed, where it runs, and how to install what is missing.

    Nothing is downloaded or changed. Put the output at the top of a bug report.
    """
    facts = {
        "versions": _versions(),
        "device": _device(),
        "memory": _memory(),
        "weights": _weights(),
        "folders": _folders(),
        "extras": _extras(),
    }
    if as_json:
        typer.echo(json.dumps(facts))
        return
    for title, section in facts.items():
        typer.echo(f"{title}:")
        for name, value in section.items():
            typer.echo(f"  {name:20} {value}")


def _versions() -> dict[str, str]:
    from derain_cli.version import __version__

    installed = {name: _version_of(name) or "missing" for name in PACKAGES}
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    return {"derain": __version__, "python": sys.version.split()[0], "system": system, **installed}


def _version_of(package: str) -> str | None:
    """The version of an installed package; OpenCV goes by several names."""
    names = [package, f"{package}-headless"] if package == "opencv-python" else [package]
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _device() -> dict[str, str]:
    import torch

    from derain_cli.inference.devices import choose_device, choose_precision
    from derain_cli.inference.engines import choose_engine

    device = choose_device("auto")
    facts = {"auto means": device, "precision auto": choose_precision("auto", device)}
    facts["engine auto"] = choose_engine("auto", "auto", "auto")
    facts["cpu"] = f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads"
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        facts[f"cuda:{index}"] = f"{card.name}, {card.total_memory / 2**30:.0f} GiB"
    if not torch.cuda.is_available():
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else ""
        facts["cuda"] = f"no GPU found; {built or 'torch is built without CUDA'}"
    return facts


def _memory() -> dict[str, str]:
    from derain_cli.inference.devices import choose_device
    from derain_cli.inference.memory import available_memory, memory_budget

    device = choose_device("auto")
    return {
        "free": f"{available_memory() / 2**30:.1f} GiB (limits of a container count)",
        "for one tile": f"{memory_budget(device) / 2**20:.0f} MiB on {device}",
    }


def _weights() -> dict[str, str]:
    from derain_cli.checkpoints.catalogue import DEFAULT_WEIGHTS, list_weights

    entries = list_weights()
    absent = [entry.name for entry in entries if not entry.bundled_path.is_file()]
    facts = {"default": DEFAULT_WEIGHTS, "bundled": f"{len(entries) - len(absent)}"}
    if absent:
        facts["not here"] = f"{', '.join(absent)}; derain models pull NAME fetches one"
    return facts


def _folders() -> dict[str, str]:
    from huggingface_hub import constants

    from derain_cli.cli.output_files import default_data_root
    from derain_cli.inference.engine_cache import engine_folder

    places = {"downloads": Path(constants.HF_HUB_CACHE), "data sets": Path(default_data_root())}
    places["compiled networks"] = engine_folder()
    return {name: f"{path} ({_size_of(path)})" for name, path in places.items()}


def _size_of(folder: Path) -> str:
    try:
        if not folder.is_dir():
            return "not there yet"
        files = (file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
        return f"{sum(file.stat().st_size for file in files) / 2**20:.0f} MiB"
    except OSError as error:  # another user's folder, say
        return f"cannot be read: {error.strerror}"


def _extras() -> dict[str, str]:
    """Version of each extra of this package, or the line that installs it."""
    return {name: _state_of(name, packages) for name, packages in _packages_by_extra().items()}


def _state_of(extra: str, packages: list[str]) -> str:
    versions: Mapping[str, Any] = {package: _version_of(package) for package in packages}
    if all(versions.values()):
        return ", ".join(f"{package} {version}" for package, version in versions.items())
    missing = ", ".join(package for package, version in versions.items() if not version)
    return f"missing {missing}: pip install 'derain-cli[{extra}]'"


def _packages_by_extra() -> dict[str, list[str]]:
    """What each extra installs, as the package itself says; empty where it is not installed."""
    try:
        requirements = importlib.metadata.requires("derain-cli") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found: dict[str, list[str]] = {}
    for requirement in requirements:
        match = REQUIREMENT.match(requirement)
        if match and match[2] not in FOR_DEVELOPERS:
            found.setdefault(match[2], []).append(match[1])
    return found
