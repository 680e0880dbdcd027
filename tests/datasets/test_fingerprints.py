"""One photo or two, one copy or two."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from derain_cli.datasets.fingerprints import (
    SAME_PHOTO,
    duplicates,
    image_digest,
    likeness,
    same_photos,
    set_digest,
    thumbnail,
)

DATA = Path(__file__).parents[3] / "shared" / "data"
SAMPLE = Path(__file__).parents[1] / "samples" / "rocket.jpg"


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.asarray(Image.open(SAMPLE).convert("RGB"))


def compressed(pixels: np.ndarray, quality: int) -> np.ndarray:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "jpeg", quality=quality)
    return np.asarray(Image.open(content))


def test_a_photo_is_known_again_after_compression_and_resizing(photo):
    whole = thumbnail(photo)
    height, width = photo.shape[:2]
    small = np.asarray(Image.fromarray(photo).resize((width // 2, height // 2)))
    for copy in (compressed(photo, 40), small, photo.astype(np.uint16) * 257):
        assert likeness(whole, thumbnail(copy)) > 0.97
    assert likeness(whole, whole) == pytest.approx(1)


def test_other_photos_and_flat_images_are_not_alike(photo):
    whole = thumbnail(photo)
    half = photo.shape[1] // 2
    for other in (photo[:, :half], photo[::-1], np.full_like(photo, 90)):
        assert likeness(whole, thumbnail(other)) < SAME_PHOTO - 0.2


def test_copies_of_one_photo_form_one_group_even_by_way_of_a_third():
    first, last = np.eye(2, 256, dtype=np.float32)
    between = (first + last) / np.float32(np.sqrt(2))
    near_first, near_last = (between + end for end in (first, last))
    chain = [first, near_first / np.linalg.norm(near_first), between,
             near_last / np.linalg.norm(near_last), last]  # fmt: skip
    assert likeness(first, last) == 0
    assert duplicates(chain) == [[0, 1, 2, 3, 4]]
    assert duplicates([first, last]) == []


def test_sets_are_compared_in_order(photo):
    images = [thumbnail(pixels) for pixels in (photo, photo[::-1], photo[:, ::-1])]
    assert list(same_photos(images, images[1:])) == [(1, 0), (2, 1)]
    assert list(same_photos(images, [])) == []


def test_digest_is_of_pixels_and_shapes_not_of_names_or_order():
    flat = np.zeros((2, 6, 3), np.uint8)
    tall = flat.reshape(6, 2, 3)
    assert image_digest(flat) != image_digest(tall)
    assert image_digest(flat) == image_digest(np.zeros((4, 6, 3), np.uint8)[::2])
    one, two = image_digest(flat, flat), image_digest(flat, flat + np.uint8(1))
    assert set_digest([one, two]) == set_digest([two, one])
    assert set_digest([one]) != set_digest([two])


@pytest.mark.skipif(not DATA.is_dir(), reason="the project's data are not here")
def test_backgrounds_shared_by_real_sets_are_found():
    def photos(name: str) -> list[np.ndarray]:
        paths = sorted((DATA / name / "clean").iterdir())
        return [thumbnail(np.asarray(Image.open(path).convert("RGB"))) for path in paths]

    dense_and_sparse = photos("ddn_sirr_test")
    assert len(list(same_photos(dense_and_sparse, photos("rain100l")))) == 9
