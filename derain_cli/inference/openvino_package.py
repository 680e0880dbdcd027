"""OpenVINO's package, loaded without its telemetry."""

import sys
from types import ModuleType
from typing import Any, cast

TELEMETRY = "openvino_telemetry"


def import_openvino() -> Any:  # noqa: ANN401 (a module of an extra)
    """The package; nothing is sent and no file of its own is written.

    Its import alone would tell its maker's server that there was one, and conversions would tell
    more. Where the package for that cannot be imported, it does neither.
    """
    present = TELEMETRY in sys.modules
    before = sys.modules.get(TELEMETRY)
    sys.modules[TELEMETRY] = cast(ModuleType, None)  # Python's own sign for "cannot be imported"
    try:
        import openvino  # noqa: PLC0415 (an extra)
        import openvino.tools.ovc  # noqa: PLC0415
    finally:
        if present:
            sys.modules[TELEMETRY] = cast(ModuleType, before)
        else:
            del sys.modules[TELEMETRY]
    return openvino
