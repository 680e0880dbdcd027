"""Does a step over three frames help a derained film? `python tests/benchmarks/steady_film.py`.

Clean films are made of photos by panning and zooming; on each frame falls other rain of the same
kind, and through every second film something moves. A step is worth keeping only if it lowers the
flicker *and* raises the PSNR. The photos come from `photos_cc0` below `$DERAIN_DATA`.
"""

import argparse
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from derain_cli.images import read_image
from derain_cli.inference.derainer import Derainer
from derain_cli.rain.painting import RAIN_KINDS, paint
from derain_cli.video.steadiness import measure_flicker, motion, moved, steady_frame

DATA = Path(os.environ.get("DERAIN_DATA", Path(__file__).parents[3] / "shared" / "data"))
Frame = NDArray[np.uint8]
Step = Callable[[Frame, Frame, Frame], Frame]
HEIGHT, WIDTH = 192, 320


def clean_film(photo: Frame, frames: int, rng: np.random.Generator) -> Iterator[Frame]:
    """A camera that pans and zooms over a photo, between a half and three pixels a frame."""
    angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 3)
    scale = 2.2 * WIDTH / photo.shape[1]
    middle = np.array([photo.shape[1], photo.shape[0]]) / 2
    for index in range(frames):
        zoom = scale * (1 + 0.002 * index)
        shift = middle * zoom + index * speed * np.array([np.cos(angle), np.sin(angle)])
        matrix = np.array(
            [[zoom, 0, WIDTH / 2 - shift[0]], [0, zoom, HEIGHT / 2 - shift[1]]], np.float32
        )
        size = (WIDTH, HEIGHT)
        yield np.asarray(
            cv2.warpAffine(
                photo, matrix, size, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT
            ),
            np.uint8,
        )


def with_passer_by(film: Sequence[Frame], photo: Frame, rng: np.random.Generator) -> list[Frame]:
    """The film with a piece of the photo that crosses it, 3 to 9 pixels a frame."""
    height, width = photo.shape[:2]
    piece = photo[height // 8 : height // 8 + 300, width // 8 : width // 8 + 420]
    piece = np.asarray(cv2.resize(piece, (70, 50), interpolation=cv2.INTER_AREA), np.uint8)
    speed, left, top = rng.uniform(3, 9), rng.uniform(10, 120), int(rng.uniform(20, 110))
    crossed = [frame.copy() for frame in film]
    for index, frame in enumerate(crossed):
        place = frame[top : top + 50, int(left + speed * index) :][:, :70]
        place[:] = piece[: place.shape[0], : place.shape[1]]
    return crossed


def rainy_film(clean: Sequence[Frame], kind: str, rng: np.random.Generator) -> Iterator[Frame]:
    """Rain of one amount and direction, at other places in every frame."""
    layer = RAIN_KINDS[kind](2 * HEIGHT, 3 * WIDTH, rng)
    for frame in clean:
        top, left = rng.integers(0, HEIGHT + 1), rng.integers(0, 2 * WIDTH + 1)
        yield paint(frame, layer[top : top + HEIGHT, left : left + WIDTH])


def plain_mean(before: Frame, frame: Frame, after: Frame) -> Frame:
    """Average where nothing is moved: what a camera that shakes makes of it."""
    return np.rint(np.mean([before, frame, after], axis=0)).astype(np.uint8)


def aligned_median(before: Frame, frame: Frame, after: Frame) -> Frame:
    """Median of the three frames moved upon each other."""
    frames = [moved(other, motion(frame, other)) for other in (before, after)]
    return np.median([*frames, frame], axis=0).astype(np.uint8)


STEPS: Mapping[str, Step] = {
    "none": lambda _before, frame, _after: frame,
    "mean, not aligned": plain_mean,
    "median, aligned": aligned_median,
    "mean, aligned (ours)": steady_frame,
}


def psnr(frame: Frame, clean: Frame) -> float:
    """Over all three channels."""
    error = float(np.mean((frame.astype(np.float32) - clean) ** 2))
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def scores(
    clean: Sequence[Frame], rainy: Sequence[Frame], derained: Sequence[Frame], step: Step
) -> tuple[float, float, float]:
    """PSNR of the inner frames, flicker of the rainy and of the derained film."""
    inner = range(1, len(clean) - 1)
    steady = {i: step(derained[i - 1], derained[i], derained[i + 1]) for i in inner}
    quality = np.mean([psnr(steady[i], clean[i]) for i in inner])
    pairs = [(i - 1, i) for i in inner if i - 1 in steady]
    flicker = [measure_flicker((rainy[a], rainy[b]), (steady[a], steady[b])) for a, b in pairs]
    return (
        float(quality),
        float(np.mean([pair.of_rainy for pair in flicker])),
        float(np.mean([pair.of_derained for pair in flicker])),
    )


def main() -> None:
    """Print a table: PSNR and flicker of every step, by kind of rain."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="rdmc-real")
    parser.add_argument("--photos", type=int, default=8)
    parser.add_argument("--frames", type=int, default=9)
    options = parser.parse_args()
    derainer = Derainer.load(options.model)
    paths = sorted((DATA / "photos_cc0").glob("*.jpg"))[: options.photos]
    print(f"{derainer.name}: {len(paths)} photos, {options.frames} frames of {WIDTH}x{HEIGHT} each")
    print(f"{'rain':8} {'step':22} {'PSNR':>7} {'flicker':>8} {'of input':>9} {'better':>7}")
    for kind in RAIN_KINDS:
        rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in STEPS}
        for index, path in enumerate(paths):
            rng = np.random.default_rng(index)
            photo = read_image(path).rgb
            clean = list(clean_film(photo, options.frames, rng))
            if index % 2:
                clean = with_passer_by(clean, photo, rng)
            rainy = list(rainy_film(clean, kind, rng))
            derained = [derainer(frame) for frame in rainy]
            for name, step in STEPS.items():
                rows[name].append(scores(clean, rainy, derained, step))
        plain = np.mean(rows["none"], axis=0)
        for name, results in rows.items():
            quality, before, after = np.mean(results, axis=0)
            better = "-" if name == "none" else str(quality > plain[0] and after < plain[2])
            print(f"{kind:8} {name:22} {quality:7.2f} {after:8.2f} {before:9.2f} {better:>7}")


if __name__ == "__main__":
    main()
