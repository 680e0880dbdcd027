"""What an HDR film says of the screen it was made on, and how an encoder is told so."""

import struct
from dataclasses import dataclass
from typing import Any

# FFmpeg's AVMasteringDisplayMetadata: red, green, blue, white as x and y, darkest, brightest; each
# a numerator and a denominator; then two flags. AVContentLightMetadata: two numbers.
MASTERING, LIGHT = struct.Struct("=20i2i"), struct.Struct("=2I")
CHROMA_UNIT, LIGHT_UNIT = 50000, 10000  # units of SMPTE ST 2086, as x265 takes them
DYNAMIC = ("DYNAMIC_HDR_PLUS", "DOVI_RPU_BUFFER", "DOVI_METADATA", "DYNAMIC_HDR_VIVID")


@dataclass(frozen=True)
class HdrFacts:
    """Of the first frame.

    Attributes:
        mastering: Screen colours and light as x265 writes them, "" where they are not named.
        light: Brightest pixel and brightest mean, "" where they are not named.
        dynamic: Whether brightness is described frame by frame (HDR10+, Dolby Vision), too.
    """

    mastering: str
    light: str
    dynamic: bool

    @property
    def x265_params(self) -> str:
        """What x265 has to know."""
        said = {"master-display": self.mastering, "max-cll": self.light}
        return "".join(f":{name}={value}" for name, value in said.items() if value)


def read_hdr(side_data: Any) -> HdrFacts | None:  # noqa: ANN401 (PyAV's, an extra)
    """What a frame's side data say; None where they say nothing of HDR."""
    mastering, light = (
        side_data.get("MASTERING_DISPLAY_METADATA"),
        side_data.get("CONTENT_LIGHT_LEVEL"),
    )
    dynamic = any(side_data.get(name) is not None for name in DYNAMIC)
    if mastering is None and light is None and not dynamic:
        return None
    return HdrFacts(
        "" if mastering is None else _mastering(bytes(mastering)),
        "" if light is None else "{},{}".format(*LIGHT.unpack_from(bytes(light))),
        dynamic,
    )


def _mastering(content: bytes) -> str:
    numbers = MASTERING.unpack_from(content)
    values = [
        numerator / (denominator or 1)
        for numerator, denominator in zip(numbers[:20:2], numbers[1:20:2], strict=True)
    ]
    chroma = [round(value * CHROMA_UNIT) for value in values[:8]]
    darkest, brightest = (round(value * LIGHT_UNIT) for value in values[8:])
    red, green, blue, white = (f"({chroma[at]},{chroma[at + 1]})" for at in (0, 2, 4, 6))
    return f"G{green}B{blue}R{red}WP{white}L({brightest},{darkest})"
