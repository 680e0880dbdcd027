"""Quoted scores."""

from derain_cli.datasets.known import DATASETS
from derain_cli.evaluation.published import Quoted, published


def test_every_quote_is_of_a_known_set_and_group():
    quotes = published(DATASETS)
    assert len(quotes) == 55 + 60 + 16 + 28 + 4
    for quoted in quotes:
        assert not quoted.group or quoted.group in DATASETS[quoted.dataset].groups
        assert 10 < quoted.psnr < 42
        assert quoted.ssim is None or 0.4 < quoted.ssim < 1
        assert quoted.protocol


def test_rows_stand_as_in_the_papers():
    by_name = {(q.source.split()[0], q.dataset, q.group, q.method): q for q in published(DATASETS)}
    assert by_name["RDMC", "rain100l", "", "RDMC"].scores == {"psnr": 36.5683, "ssim": 0.9760}
    assert by_name["HCN", "rain200h", "", "HCN"].scores == {"psnr": 29.985, "ssim": 0.9218}
    assert by_name["MENET,", "rain100h", "", "MENET-GB-deep"].psnr == 28.7399
    assert by_name["MOSS", "ddn_sirr_test", "dense", "input"].scores == {"psnr": 17.95}
    assert by_name["MOSS", "rain800", "", "MOSS"].scores == {"psnr": 26.36, "ssim": 0.848}


def test_only_what_was_asked_for_is_quoted():
    assert {quoted.dataset for quoted in published(["rain12", "no such set"])} == {"rain12"}
    assert published([]) == []
    assert isinstance(published(["spa", "rain1400"])[0], Quoted)
