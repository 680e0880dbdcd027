"""OpenVINO's package, loaded without its telemetry."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, cast

TELEMETRY, CONVERTER = "openvino_telemetry", "openvino.tools.ovc"


def import_openvino() -> Any:  # noqa: ANN401 (a module of an extra)
    """The package; nothing is sent and no file of its own is written.

    Its import alone would tell its maker's server that there was one, and conversions would tell
    more. Where the package for that cannot be imported, it does neither. Its converter is left out
    too: it takes as long to load as all the rest, and a photo needs none.
    """
    with _hidden(TELEMETRY), _hidden(CONVERTER):
        import openvino  # noqa: PLC0415 (an extra)
    return openvino


def import_converter() -> Any:  # noqa: ANN401
    """The part of the package that makes its graphs of other ones, likewise without telemetry."""
    import_openvino()
    with _hidden(TELEMETRY):
        import openvino.tools.ovc as converter  # noqa: PLC0415
    return converter


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Make a module one that cannot be imported, for a while."""
    before = sys.modules.get(name)
    sys.modules[name] = cast(ModuleType, None)  # Python's own sign for that
    try:
        yield
    finally:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
