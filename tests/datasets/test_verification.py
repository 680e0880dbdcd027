"""What `datasets verify` finds."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from derain_cli.datasets.verification import verify
from derain_cli.errors import DatasetError, ImageError
from derain_cli.metrics.full_reference import psnr

DATA = Path(__file__).parents[3] / "shared" / "data"


def photo(seed: int) -> np.ndarray:
    small = np.random.default_rng(seed).integers(20, 180, (4, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((48, 32), Image.Resampling.BICUBIC))


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def make_set(folder: Path, seeds: range, rain: int = 20) -> Path:
    for seed in seeds:
        write(folder / f"rainy/{seed}.png", photo(seed) + np.uint8(rain))
        write(folder / f"clean/{seed}.png", photo(seed))
    return folder


def test_a_sound_set(tmp_path):
    make_set(tmp_path / "rain12", range(12))
    reported = []
    found = verify("rain12", tmp_path, report=lambda *progress: reported.append(progress))
    assert found.sound
    assert (found.count, found.layout) == ("12 of 12 pairs", "rainy/ + clean/")
    assert found.sizes == {"48x32": 12}
    assert (found.problems, found.duplicates, found.shared) == ([], [], {})
    expected = psnr(photo(0) + np.uint8(20), photo(0))
    assert found.input_psnr == {"": pytest.approx(expected, abs=0.1)}
    assert reported == [(done, 12) for done in range(1, 13)]


def test_every_problem_is_listed_not_only_the_first(tmp_path):
    folder = make_set(tmp_path / "set", range(6))
    (folder / "clean/1.png").unlink()
    (folder / "rainy/2.png").write_bytes(b"")
    write(folder / "rainy/3.png", photo(3)[:-1])
    found = verify(str(folder), tmp_path)
    assert not found.sound
    assert [problem.split(":")[0] for problem in found.problems] == [
        f"'1.png' in '{folder / 'rainy'}' has no partner, or is one too many",
        "pair '2'",
        "pair '3'",
    ]
    assert found.sizes == {"48x32": 3}


def test_a_number_of_pairs_that_no_version_has_is_a_problem(tmp_path):
    make_set(tmp_path / "rain12", range(11))
    found = verify("rain12", tmp_path)
    assert found.problems == ["11 pairs, 12 expected: no version known here has so many"]


def test_duplicates_are_found_whatever_their_rain_and_format(tmp_path):
    folder = make_set(tmp_path / "set", range(4))
    write(folder / "rainy/again.png", photo(2) + np.uint8(50))
    write(folder / "clean/again.jpg", photo(2))
    found = verify(str(folder), tmp_path)
    assert found.duplicates == [["2.png", "again.jpg"]]
    assert found.sound


def test_photos_shared_with_another_set_make_it_unsound(tmp_path):
    make_set(tmp_path / "train", range(8))
    make_set(tmp_path / "test", range(6, 9), rain=60)
    found = verify("test", tmp_path, against=["train"])
    assert found.shared == {"train": [("6.png", "6.png"), ("7.png", "7.png")]}
    assert not found.sound
    make_set(tmp_path / "other", range(20, 24))
    assert verify("test", tmp_path, against=["other"]).sound


@pytest.mark.parametrize("halves", [1, 2])
def test_a_damaged_image_does_not_hide_what_the_others_are(tmp_path, halves):
    """Single photos, and pairs side by side: what they are is told from some of the images."""
    for seed in range(3):
        sides = [photo(seed), photo(seed) + np.uint8(20)][:halves]
        write(tmp_path / "set" / f"{seed}.png", np.concatenate(sides, axis=1))
    (tmp_path / "set" / "1.png").write_bytes(b"")
    found = verify(str(tmp_path / "set"), tmp_path)
    assert found.sizes == {"48x32": 2}
    (problem,) = found.problems
    assert problem.startswith("pair '1': ")
    for path in (tmp_path / "set").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ImageError, match="is empty"):
        verify(str(tmp_path / "set"), tmp_path)


def test_a_damaged_set_is_not_compared_with(tmp_path):
    make_set(tmp_path / "test", range(2))
    folder = make_set(tmp_path / "train", range(2))
    (folder / "clean/1.png").write_bytes(b"\x89PNG")
    with pytest.raises(DatasetError, match=r"'train' cannot be compared with: pair '1'"):
        verify("test", tmp_path, against=["train"])


def test_fingerprint_tells_copies_apart_by_pixels_only(tmp_path):
    first = make_set(tmp_path / "first", range(3))
    same = tmp_path / "same"
    for side in ("rainy", "clean"):
        for path in (first / side).iterdir():
            write(same / side / f"0{path.stem}.tif", np.asarray(Image.open(path)))
    other = make_set(tmp_path / "other", range(3), rain=21)
    digests = [verify(str(folder), tmp_path).digest for folder in (first, same, other)]
    assert digests[0] == digests[1] != digests[2]


def test_images_without_ground_truth_are_counted_and_compared(tmp_path):
    for seed in (1, 2, 1):
        write(tmp_path / "photos" / f"{len(list(tmp_path.glob('photos/*')))}.png", photo(seed))
    found = verify("photos", tmp_path)
    assert (found.layout, found.count) == ("images without ground truth", "3 pairs")
    assert found.duplicates == [["0.png", "2.png"]]
    assert found.input_psnr == {}


@pytest.mark.skipif(not DATA.is_dir(), reason="the project's data are not here")
def test_the_version_of_a_real_set_is_recognised():
    found = verify("ddn-sirr", DATA)
    assert found.input_psnr == pytest.approx(
        {"": 20.8745, "dense": 17.8178, "sparse": 23.9312}, abs=1e-3
    )
    assert found.version == "the version that papers score (20.88 dB)"
