"""Scoring: one row per image and model, one pass over the data, the network never waiting."""

import math
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from derain_cli.datasets.known import dataset_pairs
from derain_cli.datasets.layouts import find_pairs
from derain_cli.errors import DatasetError, ImageError, UsageError
from derain_cli.evaluation.scoring import evaluate, score_image
from derain_cli.evaluation.statistics import INPUT, summarise
from derain_cli.metrics.full_reference import psnr, ssim
from derain_cli.metrics.niqe import niqe
from derain_cli.metrics.region_errors import region_errors

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the project's data are not here")


class Darkening:
    """Takes a constant from every pixel, and remembers the images it was given."""

    def __init__(self, name: str, amount: int) -> None:
        self.name, self.amount = name, amount
        self.seen: list[np.ndarray] = []

    def __call__(self, rainy: np.ndarray) -> np.ndarray:
        self.seen.append(rainy)
        return rainy - np.uint8(self.amount)


def clean_image(seed: int, size: tuple[int, int] = (40, 32)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, (size[1], size[0], 3)).astype(np.uint8)


def write_set(folder: Path, count: int, rain: int = 30) -> Path:
    for side, extra in (("rainy", rain), ("clean", 0)):
        (folder / side).mkdir(parents=True)
        for seed in range(count):
            pixels = clean_image(seed) + np.uint8(extra)
            Image.fromarray(pixels).save(folder / side / f"{seed}.png")
    return folder


def test_rows_follow_the_images_input_first(tmp_path):
    pairs = find_pairs(write_set(tmp_path / "set", 3))
    models = [Darkening("good", 20), Darkening("bad", 5)]
    rows = list(evaluate({"set": pairs}, models))
    expected = [(str(n), model) for n in range(3) for model in (INPUT, "good", "bad")]
    assert [(row.image, row.model) for row in rows] == expected
    by_model = {score.model: score.means["psnr"].value for score in summarise(rows)}
    assert by_model[INPUT] < by_model["bad"] < by_model["good"]
    clean = clean_image(2)
    assert rows[7].scores == {
        "psnr": psnr(clean + np.uint8(10), clean),
        "ssim": ssim(clean + np.uint8(10), clean),
    }


def test_every_image_is_read_once_for_all_models(tmp_path):
    pairs = find_pairs(write_set(tmp_path / "set", 4))
    models = [Darkening("a", 1), Darkening("b", 2), Darkening("c", 3)]
    list(evaluate({"set": pairs}, models))
    identities = [[id(image) for image in model.seen] for model in models]
    assert identities[0] == identities[1] == identities[2]
    assert len(identities[0]) == 4


def test_without_models_the_input_alone_is_scored(tmp_path):
    pairs = find_pairs(write_set(tmp_path / "set", 2))
    rows = list(evaluate({"set": pairs}, []))
    assert [(row.model, row.seconds) for row in rows] == [(INPUT, 0.0)] * 2


def test_scoring_runs_beside_the_network(tmp_path):
    pairs = find_pairs(write_set(tmp_path / "set", 2))
    network_went_on = threading.Event()

    class Network(Darkening):
        def __call__(self, rainy: np.ndarray) -> np.ndarray:
            if self.seen:
                network_went_on.set()
            return super().__call__(rainy)

    waited: list[bool] = []

    def observe(scored):
        if scored.row.model != INPUT and scored.row.image == "0":
            waited.append(network_went_on.wait(timeout=20))

    list(evaluate({"set": pairs}, [Network("net", 1)], observe=observe))
    assert waited == [True]


def test_slow_scoring_holds_the_network_back_before_memory_fills(tmp_path):
    pairs = find_pairs(write_set(tmp_path / "set", 12))
    model, go_on = Darkening("net", 1), threading.Event()
    scored_when_first = []

    def observe(scored):
        if not scored_when_first:
            # The network has stopped when it runs no further while scoring stands still.
            while not go_on.wait(timeout=0.3) and len(model.seen) not in scored_when_first:
                scored_when_first.append(len(model.seen))

    list(evaluate({"set": pairs}, [model], observe=observe))
    assert scored_when_first[-1] <= 4
    assert len(model.seen) == 12


def test_observer_sees_every_scored_image(tmp_path):
    pairs = find_pairs(write_set(tmp_path / "set", 2))
    seen: Counter[tuple[str, int]] = Counter()

    def observe(scored):
        difference = int(scored.rainy.astype(int).sum() - scored.derained.astype(int).sum())
        seen[scored.row.model, difference // scored.rainy.size] += 1

    list(evaluate({"set": pairs}, [Darkening("net", 7)], observe=observe))
    assert seen == {(INPUT, 0): 2, ("net", 7): 2}


def test_metrics_are_those_asked_for_in_that_order(tmp_path):
    clean = clean_image(1, (100, 100))
    rainy = clean.copy()
    rainy[::3] += np.uint8(50)
    derained = clean + np.uint8(3)
    scores = score_image(derained, rainy, clean, "rgb", ["e_b", "niqe", "e_r", "psnr"])
    errors = region_errors(derained, rainy, clean)
    assert list(scores.items()) == [
        ("e_b", errors.e_b),
        ("niqe", niqe(derained)),
        ("e_r", errors.e_r),
        ("e_r_ceiling", errors.e_r_ceiling),
        ("psnr", psnr(derained, clean, "rgb")),
    ]


def test_scores_that_are_not_defined_are_left_out_of_means(tmp_path):
    folder = write_set(tmp_path / "set", 2)
    dry = clean_image(1)
    for side in ("rainy", "clean"):
        Image.fromarray(dry).save(folder / side / "1.png")
    rows = list(evaluate({"set": find_pairs(folder)}, [], metrics=["psnr", "e_r", "e_b"]))
    assert rows[1].scores["psnr"] == math.inf
    assert math.isnan(rows[1].scores["e_r"])
    assert math.isnan(rows[0].scores["e_b"])
    (score,) = summarise(rows)
    assert score.means["psnr"].value == math.inf
    assert (score.means["e_r_ceiling"].value, score.means["e_r_ceiling"].images) == (30, 1)
    assert score.means["e_b"].images == 1


def test_protocol_is_the_data_sets_own_unless_one_is_given(tmp_path):
    folder = write_set(tmp_path / "ddn_sirr_test", 1)
    pairs = {"ddn-sirr": find_pairs(folder), "mine": find_pairs(folder)}
    assert [row.protocol for row in evaluate(pairs, [])] == ["rgb", "y"]
    assert {row.protocol for row in evaluate(pairs, [], "y-full")} == {"y-full"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ["psrn"]}, "unknown metric 'psrn'. Did you mean 'psnr'"),
        ({"protocol": "yuv"}, "unknown protocol 'yuv'"),
    ],
)
def test_unknown_names_are_refused_before_any_work(tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        evaluate({}, [], **options)


def test_pairs_that_cannot_be_scored_are_errors_that_name_them(tmp_path):
    folder = write_set(tmp_path / "set", 2)
    (folder / "clean/1.png").write_bytes(b"GIF8")
    with pytest.raises(DatasetError, match=r"pair '1': '.*1\.png' is"):
        list(evaluate({"set": find_pairs(folder)}, [Darkening("net", 1)]))
    Image.fromarray(clean_image(1)[:20]).save(folder / "clean/1.png")
    with pytest.raises(DatasetError, match=r"pair '1': .* a pair must have one size"):
        list(evaluate({"set": find_pairs(folder)}, []))
    Image.fromarray(clean_image(1)).save(folder / "clean/1.png")
    with pytest.raises(ImageError, match=r"'0' of 'set' under '\(input\)': NIQE .*; take"):
        list(evaluate({"set": find_pairs(folder)}, [], metrics=["niqe"]))


def test_an_error_of_the_network_ends_the_evaluation_and_its_threads(tmp_path):
    pairs = find_pairs(write_set(tmp_path / "set", 6))

    class Broken:
        name = "broken"

        def __call__(self, rainy: np.ndarray) -> np.ndarray:
            raise ImageError("no finite values")

    with pytest.raises(ImageError, match="no finite values"):
        list(evaluate({"set": pairs}, [Broken()]))
    assert not [thread for thread in threading.enumerate() if "scoring" in thread.name]


def test_stopping_early_ends_the_threads(tmp_path):
    pairs = find_pairs(write_set(tmp_path / "set", 6))
    rows = evaluate({"set": pairs}, [])
    next(rows)
    rows.close()
    assert not [thread for thread in threading.enumerate() if "reading" in thread.name]


@needs_data
def test_input_of_ddn_sirr_scores_as_is_known():
    rows = evaluate({"ddn-sirr": dataset_pairs("ddn-sirr", DATA)}, [])
    means = {score.group: score.means["psnr"].value for score in summarise(rows)}
    assert means["dense"] == pytest.approx(17.82, abs=0.005)
    assert means["sparse"] == pytest.approx(23.93, abs=0.005)
