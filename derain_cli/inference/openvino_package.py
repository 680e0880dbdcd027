"""OpenVINO's package, loaded without its telemetry."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, cast

TELEMETRY, CONVERTER = "openvino_telemetry", "openvino.tools.ovc"


def import_openvino() -> Any:  # noqa: ANN401 (a module of an extra)
    """The package without its converter, whose import takes as long as all the rest.

    Nothing is sent and no file of its own is written.
    """
    # The package does without a converter that cannot be imported.
    with _absent(TELEMETRY), _absent(CONVERTER):
        import openvino  # noqa: PLC0415 (an extra)
    return openvino


def convert_model(program: Any) -> Any:  # noqa: ANN401 (classes of extras)
    """OpenVINO's graph of a program that `torch.export` traced.

    The converter's import alone would tell its maker's server that there was one, and conversions
    would tell more. Where the package for that cannot be imported, it does neither.
    """
    import_openvino()
    with _absent(TELEMETRY):
        from openvino.tools.ovc import convert_model  # noqa: PLC0415 (an extra)
    return convert_model(program)


@contextmanager
def _absent(name: str) -> Iterator[None]:
    """A module that is not loaded yet cannot be imported meanwhile."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = cast(ModuleType, None)  # Python's own sign for "cannot be imported"
    try:
        yield
    finally:
        del sys.modules[name]
