"""How steady a film is, and the step that makes it steadier.

Flicker is the mean change of brightness between a frame and the one before it, after the one before
has been moved to where its contents went: what is left is what moves for no reason. Rain is the
largest part of it in a rainy film, so the derained film must stay below the rainy one.

The step over three frames rests on the same motion: rain does not stand still, the scene does. It
is there because it lowers the flicker and raises the PSNR (tests/benchmarks/steady_film.py).
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Frame = NDArray[Any]  # (height, width, 3), uint8 or uint16
Flow = NDArray[np.float32]  # (height, width, 2): where each pixel was in the other frame

FLOW_SIDE = 480  # longest side on which motion is estimated: finer is rain, not motion
MEASURED_SIDE = 960  # longest side on which flicker is measured
SHORTEST_SEARCHED = 32  # pixels; the search for motion takes patches
WINDOW, SAME_WITHIN = 5, 20  # a neighbour whose mean change in the window is above counts less


@dataclass(frozen=True)
class Flicker:
    """Sums of the change between aligned neighbours, in levels of 8 bits, and how many there are.

    Example:
        >>> total = Flicker(2.0, 1.0, 1) + Flicker(4.0, 2.0, 1)
        >>> total.of_rainy, total.of_derained
        (3.0, 1.5)
    """

    rainy: float = 0.0
    derained: float = 0.0
    pairs: int = 0

    def __add__(self, other: "Flicker") -> "Flicker":
        """Both stretches of film together."""
        return Flicker(
            self.rainy + other.rainy, self.derained + other.derained, self.pairs + other.pairs
        )

    @property
    def of_rainy(self) -> float:
        """Mean change of the input; 0 for a film of one frame."""
        return self.rainy / max(self.pairs, 1)

    @property
    def of_derained(self) -> float:
        """Mean change of the result."""
        return self.derained / max(self.pairs, 1)


def measure_flicker(rainy: tuple[Frame, Frame], derained: tuple[Frame, Frame]) -> Flicker:
    """Flicker of two neighbours, the earlier one first; both films share the derained's motion."""
    before, after = (_brightness(frame, MEASURED_SIDE) for frame in derained)
    flow = _resized_flow(motion(derained[1], derained[0]), before.shape)
    earlier, later = (_brightness(frame, MEASURED_SIDE) for frame in rainy)
    return Flicker(
        _mean_change(later, moved(earlier, flow)), _mean_change(after, moved(before, flow)), 1
    )


def steady_frame(before: Frame | None, frame: Frame, after: Frame | None) -> Frame:
    """Mean of a derained frame and its neighbours, moved to where its contents are.

    A neighbour counts where it shows the same: what it shows of another place, because something
    moved faster than the search for motion can follow, would be a ghost. At the first and the last
    frame of a film one neighbour is missing.
    """
    neighbours = [_aligned(other, frame) for other in (before, after) if other is not None]
    total, weights = frame.astype(np.float32), np.ones(frame.shape[:2], np.float32)
    for neighbour in neighbours:
        change = _colour_change(neighbour, frame)
        around = np.asarray(cv2.boxFilter(change, -1, (WINDOW, WINDOW)), np.float32)
        weight = np.clip(2 - around / SAME_WITHIN, 0, 1)
        total += neighbour * weight[..., None]
        weights += weight
    steady: Frame = np.rint(total / weights[..., None]).astype(frame.dtype)
    return steady


def motion(frame: Frame, other: Frame) -> Flow:
    """Where each pixel of a frame lies in another, on a grid of at most `FLOW_SIDE`."""
    one, two = (_brightness(image, FLOW_SIDE).astype(np.uint8) for image in (frame, other))
    if min(one.shape) < SHORTEST_SEARCHED:
        return np.zeros((*one.shape, 2), np.float32)
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return np.asarray(search.calc(one, two, np.zeros((*one.shape, 2), np.float32)), np.float32)


def moved(frame: NDArray[Any], flow: Flow) -> NDArray[Any]:
    """A frame read at the places that the flow names, as sharp as it was."""
    height, width = flow.shape[:2]
    columns = flow[..., 0] + np.arange(width, dtype=np.float32)
    rows = flow[..., 1] + np.arange(height, dtype=np.float32)[:, None]
    result = cv2.remap(frame, columns, rows, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(result, frame.dtype)


def _aligned(other: Frame, frame: Frame) -> Frame:
    """Another frame of the same scene, its contents moved to where they are in this one."""
    return moved(other, _resized_flow(motion(frame, other), frame.shape[:2]))


def _brightness(frame: Frame, longest: int | None = None) -> NDArray[np.float32]:
    """Gray in levels of 8 bits, made smaller where a side is longer."""
    scale = min(1.0, longest / max(frame.shape[:2])) if longest else 1.0
    if scale < 1:
        size = (max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale)))
        frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    gray = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.float32)
    return gray / np.float32(257) if frame.dtype == np.uint16 else gray


def _colour_change(frame: Frame, other: Frame) -> NDArray[np.float32]:
    """Largest change of a channel, levels of 8 bits: red and green may be equally bright."""
    red, green, blue = cv2.split(cv2.absdiff(frame, other))
    largest = np.asarray(cv2.max(cv2.max(red, green), blue), np.float32)
    return largest / np.float32(257) if frame.dtype == np.uint16 else largest


def _resized_flow(flow: Flow, shape: tuple[int, ...]) -> Flow:
    """The same motion on another grid, in that grid's pixels."""
    height, width = shape[:2]
    if flow.shape[:2] == (height, width):
        return flow
    resized = np.asarray(cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR))
    scale = np.array([width / flow.shape[1], height / flow.shape[0]], np.float32)
    return np.asarray(resized * scale, np.float32)


def _mean_change(frame: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(np.abs(frame - other).mean())
