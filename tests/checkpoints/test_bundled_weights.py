"""The bundled weights keep the promises of README and of their cards."""

from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from PIL import Image

from derain_cli.checkpoints.catalogue import list_weights
from derain_cli.datasets.image_cache import read_pixels
from derain_cli.datasets.known import dataset_pairs
from derain_cli.datasets.layouts import list_images
from derain_cli.evaluation.scoring import evaluate
from derain_cli.evaluation.statistics import summarise
from derain_cli.inference.derainer import Derainer
from derain_cli.metrics.full_reference import psnr
from derain_cli.rain.painting import LARGE, paint, range_layer
from tests.benchmarks import sample_image

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
SETS = ("rain100l", "rain100h", "ddn_sirr_test")
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no data sets in {DATA}")


def test_sample_of_the_readme_loses_its_rain() -> None:
    rainy = np.asarray(Image.open(ROOT / "tests" / "samples" / "rocket.jpg"))
    clean = (255 * sample_image.scene()).round().astype(np.uint8)
    assert psnr(rainy, clean, "rgb") < 20
    assert psnr(Derainer.load()(rainy), clean, "rgb") > 30


def test_tiles_equal_the_whole_image_within_one_level_at_the_default_overlap():
    photo = Image.open(ROOT / "tests" / "samples" / "rocket.jpg").resize((900, 600))
    layer = range_layer(600, 900, np.random.default_rng(0), LARGE)
    rainy = paint(np.asarray(photo), layer)
    tiled, facts = Derainer.load(tile=640).run(rainy)
    assert facts.tile == 640
    whole = Derainer.load(tile=0)(rainy)
    assert np.abs(tiled.astype(int) - whole).max() <= 1


@needs_data
@pytest.mark.slow
def test_dry_photos_come_back_nearly_as_they_were():
    derainer = Derainer.load()
    photos = [read_pixels(path) for path in list_images(DATA / "rain100l" / "clean")[:20]]
    unchanged = 138.13  # dB, for a photo that comes back to the bit: as tests/benchmarks/figures.py
    kept = fmean(min(psnr(derainer(photo), photo, "rgb"), unchanged) for photo in photos)
    assert kept == pytest.approx(69.8, abs=0.05)  # README's figure


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize("entry", list_weights(), ids=lambda entry: entry.name)
def test_card_is_what_eval_measures(entry):
    """At 8-bit luma, on the data sets that its card names; what a card scores beyond PSNR too."""
    told = {name: entry.about["scores"][name] for name in SETS if name in entry.about["scores"]}
    derainer = Derainer.load(entry.name, precision=told["rain100l"].get("precision", "fp32"))
    metrics = ["psnr", "ssim", *(["e_r", "e_b"] if "e_r" in told["rain100l"] else [])]
    pairs = {name: dataset_pairs(name, DATA) for name in told}
    measured = {
        score.dataset: score.means
        for score in summarise(evaluate(pairs, [derainer], "y", metrics=metrics))
        if score.model == derainer.name and not score.group
    }
    assert "rain100l" in measured
    for name, means in measured.items():
        for metric in metrics:
            within = 0.0005 if metric == "ssim" else 0.01
            assert means[metric].value == pytest.approx(told[name][metric], abs=within)
