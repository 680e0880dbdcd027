"""Frames through the network and, steadied, into segments."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from derain_cli.errors import ResourceError
from derain_cli.video.encoding import SEGMENT, Coding, Encoded, SegmentEncoder
from derain_cli.video.reading import Film, TimedFrame, timed_frames
from derain_cli.video.segments import Segment, SegmentFolder
from derain_cli.video.steadiness import Flicker, Frame, measure_flicker, steady_frame

if TYPE_CHECKING:
    from derain_cli.inference.bands import RunFacts
    from derain_cli.inference.derainer import Derainer

BATCH_OF_A_CARD = 4  # frames at once on a GPU, which one frame does not fill; a CPU it does


@dataclass(frozen=True)
class DerainedFrame:
    """A frame before and after the network, upright."""

    rainy: TimedFrame
    pixels: Frame


class FrameNetwork:
    """Derains frames in batches.

    Attributes:
        batch_size: Frames that go through the network together.
        tile: Side of the tiles, 0 for whole frames; known after the first batch.
        notices: What the engine has to say, each once.
    """

    def __init__(self, derainer: "Derainer", strength: float, batch_size: int) -> None:
        on_card = derainer.device != "cpu"
        self._derainer, self._strength = derainer, strength
        self.batch_size = batch_size if batch_size > 1 or not on_card else BATCH_OF_A_CARD
        self.tile = 0
        self.notices: dict[str, None] = {}

    def derain(self, batch: Sequence[TimedFrame]) -> list[DerainedFrame]:
        """The derained frames of a batch in order.

        Raises:
            ResourceError: Not enough memory even for one frame in small tiles.
            ImageError: The network gave no finite values.
        """
        if len(batch) > 1:
            try:
                return self._together(batch)
            except ResourceError:
                self.batch_size = 1
        return [DerainedFrame(rainy, self._alone(rainy.pixels)) for rainy in batch]

    def _alone(self, rainy: Frame) -> Frame:
        pixels, facts = self._derainer.run(rainy, self._strength)
        self._note(facts)
        return pixels

    def _note(self, facts: "RunFacts") -> None:
        self.tile = facts.tile
        self.notices.update(dict.fromkeys(facts.notices))

    def _together(self, batch: Sequence[TimedFrame]) -> list[DerainedFrame]:
        frames = [rainy.pixels for rainy in batch]
        pixels, facts = self._derainer.run_together(frames, self._strength)
        self._note(facts)
        return [DerainedFrame(rainy, one) for rainy, one in zip(batch, pixels, strict=True)]


def batches(film: Film, first: int, size: int) -> Generator[list[TimedFrame]]:
    """The frames from number `first` on, in groups that are the same wherever one begins.

    A batch begins at a multiple of its size, so that a frame meets the same neighbours in the
    network, and with them the same rounding, in a run that was resumed.
    """
    batch: list[TimedFrame] = []
    for frame in timed_frames(film, first // size * size):
        batch.append(frame)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


class SegmentWriter:
    """Steadies derained frames, encodes them, and stores each segment when it is full.

    Attributes:
        written: Frames that were encoded.
    """

    def __init__(
        self,
        film: Film,
        coding: Coding,
        folder: SegmentFolder,
        *,
        first: int,
        temporal: bool,
        global_header: bool,
    ) -> None:
        self._film, self._coding, self._folder = film, coding, folder
        self._first, self._temporal, self._global_header = first, temporal, global_header
        self._waiting: list[DerainedFrame] = []  # at most the frame to come and the one before it
        self._neighbour: DerainedFrame | None = None  # the frame before those, already encoded
        self._before: tuple[Frame, Frame] | None = None  # rainy and result, of the segment's last
        self._encoder: SegmentEncoder | None = None
        self._packets: list[Encoded] = []
        self._times: list[int] = []
        self._flicker, self._damaged = Flicker(), 0
        self.written = first

    @staticmethod
    def first_needed(first: int, *, temporal: bool) -> int:
        """The frame to begin with so that frame `first` has the neighbours that it needs."""
        return max(0, first - 1) if temporal else first

    def add(self, frames: Sequence[DerainedFrame]) -> None:
        """Take the next frames; those before the first of this run serve as neighbours alone."""
        for frame in frames:
            self._waiting.append(frame)
            if len(self._waiting) > 1:
                self._take(self._waiting.pop(0), self._waiting[0])

    def finish(self) -> None:
        """Encode what waits for a neighbour that does not come, and store the last segment."""
        if self._waiting:
            self._take(self._waiting.pop(), None)
        self._store(is_last=True)

    def _take(self, frame: DerainedFrame, after: DerainedFrame | None) -> None:
        before, self._neighbour = self._neighbour, frame
        if frame.rainy.index < self._first:
            return
        pixels = frame.pixels
        if self._temporal:
            pixels = steady_frame(
                before.pixels if before else None, pixels, after.pixels if after else None
            )
        self._encode(frame.rainy, pixels)
        if (frame.rainy.index + 1) % SEGMENT == 0 and after is not None:
            self._store(is_last=False)

    def _encode(self, rainy: TimedFrame, pixels: Frame) -> None:
        if self._encoder is None:
            self._encoder = SegmentEncoder(
                self._film, self._coding, rainy.index, global_header=self._global_header
            )
        if self._before is not None:
            self._flicker += measure_flicker(
                (self._before[0], rainy.pixels), (self._before[1], pixels)
            )
        self._before = rainy.pixels, pixels
        self._times.append(rainy.time)
        self._damaged += rainy.damaged
        self._packets += self._encoder.encode(pixels)
        self.written = rainy.index + 1

    def _store(self, *, is_last: bool) -> None:
        if self._encoder is None:
            return
        self._packets += self._encoder.finish()
        first = self.written - len(self._times)
        segment = Segment(
            first,
            tuple(self._times),
            self._flicker,
            is_last,
            self._damaged,
            packets=self._packets,
        )
        self._folder.add(first // SEGMENT, segment)
        # Neighbours in two segments are not compared: a resumed run would not have the first.
        self._encoder, self._before, self._flicker = None, None, Flicker()
        self._packets, self._times, self._damaged = [], [], 0
