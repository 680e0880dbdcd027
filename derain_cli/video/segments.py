"""What is finished of a film, kept beside the target until all of it is.

Each segment is a file that is written whole: what it says in JSON on the first line, then the
packets. A run with the same film, network and settings takes the segments over; any other run
clears them away.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from derain_cli.errors import ImageError
from derain_cli.video.encoding import Encoded
from derain_cli.video.steadiness import Flicker
from derain_cli.whole_files import write_whole_file

FACTS = "film.json"
FORMAT = 2


@dataclass(frozen=True)
class Segment:
    """Frames that were encoded together.

    Attributes:
        first: Number of the first frame.
        times: When each frame is shown, in units of the film's time base.
        flicker: Of the neighbours within the segment.
        is_last: Whether the film ends with it.
        damaged: How many frames the decoder had to make up in part.
        order: Numbers of the frames, in the order of decoding.
        packets: In that order; empty where only the rest was asked for.
    """

    first: int
    times: tuple[int, ...]
    flicker: Flicker
    is_last: bool
    damaged: int = 0
    order: tuple[int, ...] = ()
    packets: Sequence[Encoded] = field(repr=False, default=())


class SegmentFolder:
    """The segments of one film, in a hidden folder beside its target; one run at a time.

    Attributes:
        path: The folder.
    """

    def __init__(self, target: Path, facts: Mapping[str, object]) -> None:
        """Take the folder over, or make it; segments of other facts are removed.

        Args:
            target: The file that the segments will become.
            facts: Everything that decides what the segments hold.

        Raises:
            ImageError: Another run is at work on the same target.
            OSError: It cannot be made.
        """
        digest = hashlib.blake2s(os.fsencode(target.name), digest_size=6).hexdigest()
        self.path = target.parent / f".derain-{digest}.film"
        # For the owner alone: the film may be private.
        self.path.mkdir(0o700, parents=True, exist_ok=True)
        self._lock = _Lock(self.path / "lock", target)
        known = json.dumps({"format": FORMAT, **facts}, sort_keys=True)
        if _text_of(self.path / FACTS) != known:
            for file in self.path.glob("*.segment"):
                file.unlink()
            write_whole_file(self.path / FACTS, known.encode())

    def finished(self) -> list[Segment]:
        """What is there from the beginning on without a gap, without the packets."""
        segments: list[Segment] = []
        while (file := self._file(len(segments))).exists():
            segments.append(_read(file, packets=False))
        return segments

    def add(self, number: int, segment: Segment) -> None:
        """Write a segment, whole or not at all."""
        header = {
            "first": segment.first,
            "times": segment.times,
            "flicker": [segment.flicker.rainy, segment.flicker.derained, segment.flicker.pairs],
            "last": segment.is_last,
            "damaged": segment.damaged,
            "packets": [[one.index, one.is_key, len(one.content)] for one in segment.packets],
        }
        parts = [json.dumps(header).encode(), b"\n", *(one.content for one in segment.packets)]
        write_whole_file(self._file(number), b"".join(parts))

    def packets(self) -> Iterator[Encoded]:
        """Every packet, one segment in memory at a time."""
        number = 0
        while (file := self._file(number)).exists():
            yield from _read(file, packets=True).packets
            number += 1

    def close(self) -> None:
        """Leave the segments to a later run."""
        self._lock.release()
        with contextlib.suppress(OSError):  # nothing was finished: nothing to keep
            if not any(self.path.glob("*.segment")):
                self.remove()

    def remove(self) -> None:
        """Remove the folder and what is in it."""
        self._lock.release()
        shutil.rmtree(self.path, ignore_errors=True)

    def _file(self, number: int) -> Path:
        return self.path / f"{number:06}.segment"


class _Lock:
    """Holds a folder for this process; the system lets go of it if the process dies."""

    def __init__(self, path: Path, target: Path) -> None:
        self._file = path.open("wb")
        try:
            import fcntl  # noqa: PLC0415 (not on Windows, where two runs at once are not noticed)
        except ImportError:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise ImageError(
                f"{str(target)!r} is being written by another run; wait for it or choose another -o"
            ) from error

    def release(self) -> None:
        self._file.close()


def _read(file: Path, *, packets: bool) -> Segment:
    with file.open("rb") as stream:
        header = json.loads(stream.readline())
        table = header["packets"]
        read = [Encoded(index, is_key, stream.read(size)) for index, is_key, size in table]
    order = tuple(index for index, _, _ in table)
    times, flicker = tuple(header["times"]), Flicker(*header["flicker"])
    return Segment(
        header["first"],
        times,
        flicker,
        header["last"],
        header["damaged"],
        order,
        read if packets else (),
    )


def _text_of(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
