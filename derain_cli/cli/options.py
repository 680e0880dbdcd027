"""Options that several commands share: how a network runs, and on what."""

from enum import StrEnum
from typing import Annotated, Any

import typer

HOW, SPEED = "Deraining", "Speed and memory"
DEVICE = "auto, cpu, cuda[:N] or mps."


class Precision(StrEnum):
    """Number formats the network can run in."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class Scales(StrEnum):
    """Sizes of an image at which rain is looked for."""

    one = "1"
    two = "2"
    four = "4"
    auto = "auto"

    @property
    def number(self) -> int | str:
        """As `Derainer` takes it."""
        return self.value if self == Scales.auto else int(self.value)


class EngineName(StrEnum):
    """Programs that can run the network."""

    auto = "auto"
    torch = "torch"
    openvino = "openvino"
    onnx = "onnx"


def option(*names: str, help: str, panel: str, **settings: Any) -> Any:  # noqa: ANN401
    """A `typer.Option` in a panel of the help."""
    return typer.Option(*names, help=help, rich_help_panel=panel, **settings)


Passes = Annotated[
    int,
    option(
        "--passes",
        panel=HOW,
        min=1,
        help="Run the network this many times; each pass removes rain that the last one left.",
    ),
]

TestTimeAugmentation = Annotated[
    bool,
    option(
        "--tta",
        panel=HOW,
        help="Average the results of eight flips and rotations: eight times the work for the last "
        "tenths of a dB.",
    ),
]

ScalesOption = Annotated[
    Scales,
    option(
        "--scales",
        panel=HOW,
        help="Find wide rain at half (2) or a quarter (4) of the size first; auto decides by the "
        "width of the streaks in each image.",
    ),
]

Strength = Annotated[
    float, option("--strength", min=0, max=1, panel=HOW, help="Remove this share of the rain.")
]

Device = Annotated[str, option("--device", "-d", panel=SPEED, help=DEVICE)]

PrecisionOption = Annotated[
    Precision,
    option(
        "--precision",
        panel=SPEED,
        help="Number format of the network; auto is bf16 where the device multiplies it natively, "
        "else fp32.",
    ),
]

EngineOption = Annotated[
    EngineName,
    option(
        "--engine",
        envvar="DERAIN_ENGINE",
        panel=SPEED,
        help="What runs the network; auto is openvino on a CPU where it is installed, else torch.",
    ),
]

Tile = Annotated[
    int | None,
    option(
        "--tile",
        "-t",
        min=0,
        show_default="fits the memory",
        panel=SPEED,
        help="Side of the tiles an image is cut into; 0 for the whole image at once.",
    ),
]

TileOverlap = Annotated[
    int | None,
    option(
        "--tile-overlap",
        min=0,
        show_default="the model's own",
        panel=SPEED,
        help="Pixels that neighbouring tiles share.",
    ),
]

Threads = Annotated[
    int | None,
    option(
        "--threads",
        min=1,
        show_default="all cores",
        panel=SPEED,
        help="CPU threads of the network.",
    ),
]

BatchSize = Annotated[
    int,
    option(
        "--batch-size",
        min=1,
        panel=SPEED,
        help="Number of images of one size that go through the network together.",
    ),
]

# In a command that needs no panels.
PlainDevice = Annotated[str, typer.Option("--device", "-d", help=DEVICE)]
