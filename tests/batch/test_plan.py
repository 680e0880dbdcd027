import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from derain_cli.batch import BatchOptions, plan_batch
from derain_cli.batch.places import Place, choose_place
from derain_cli.errors import ResourceError, UsageError

AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def plan_in(folder: Path, *words: str, **options: object) -> dict[str, tuple[str, ...]]:
    """Source -> targets of a plan, relative to a folder."""
    plan = plan_batch([str(folder / word) for word in words], BatchOptions(**options))
    return {
        str(job.source.relative_to(folder)): tuple(str(t.relative_to(folder)) for t in job.targets)
        for job in plan.jobs
    }


@pytest.mark.parametrize(
    ("output", "options", "expected"),
    [
        (None, {}, "p.JPG -> p_derained.JPG"),
        (None, {"suffix": "_dry"}, "p.JPG -> p_dry.JPG"),
        (None, {"format": "png"}, "p.JPG -> p_derained.png"),
        (None, {"format": "jpg"}, "p.JPG -> p_derained.JPG"),
        ("there", {}, "p.JPG -> there/p.JPG"),
        ("new/", {}, "p.JPG -> new/p.JPG"),
        ("new.webp", {}, "p.JPG -> new.webp"),
        ("deep/new.tif", {"format": "tiff"}, "p.JPG -> deep/new.tif"),
        ("nameless", {"format": "png"}, "p.JPG -> nameless"),
        ("new.png", {"save_rain": True}, "p.JPG -> new_rain.png new.png"),
        (None, {"compare": True}, "p.JPG -> p_derained_compare.JPG p_derained.JPG"),
    ],
)
def test_where_one_image_goes(
    tmp_path: Path,
    make_image: Callable[..., Path],
    output: str | None,
    options: dict[str, object],
    expected: str,
) -> None:
    make_image(tmp_path / "p.JPG")
    (tmp_path / "there").mkdir()
    where = output and f"{tmp_path}/{output}"
    (found,) = plan_in(tmp_path, "p.JPG", output=where, **options).items()
    assert f"{found[0]} -> {' '.join(found[1])}" == expected


@pytest.mark.parametrize("name", ["p.gif", "p.heic", "p"])
def test_what_cannot_be_written_becomes_png(tmp_path: Path, name: str) -> None:
    Image.new("L", (4, 4)).save(tmp_path / name, "GIF")
    assert plan_in(tmp_path, name) == {name: ("p_derained.png",)}


@pytest.mark.parametrize("name", ["p", "p.jpg_large"])
def test_a_name_without_a_known_ending_gets_its_contents(tmp_path: Path, name: str) -> None:
    Image.new("L", (4, 4)).save(tmp_path / name, "JPEG")
    assert plan_in(tmp_path, name) == {name: ("p_derained.jpg",)}


@pytest.mark.parametrize(
    ("words", "options", "message"),
    [
        (["a.jpg"], {"output": "{}/x.xyz"}, "no ending that names a format"),
        (["a.jpg"], {"output": "{}/nameless"}, "a folder is written with a '/'"),
        (["a.jpg"], {"output": "{}/x.png", "format": "jpg"}, "leave `format` away"),
        (["a.jpg"], {"output": ""}, "`output` is empty"),
        (["a.jpg"], {"output": "-", "save_rain": True}, "stdout holds one image"),
        (["a.jpg", "b.png"], {"output": "-"}, "one image"),
        (["a.jpg", "b.png"], {"output": "{}/a.jpg"}, "is a file"),
        (["a.jpg", "b.png"], {"output": "{}/new.png"}, "would be a folder"),
        (["."], {"output": "{}"}, "is the input folder itself"),
        (["a.jpg"], {"output": "{}/a.jpg/x.png"}, "is no folder"),
        (["a.jpg"], {"suffix": "../x"}, "part of a file name"),
        (["a.jpg"], {"suffix": ""}, "originals are never written to"),
        (["a.jpg"], {"output": "{}/a.jpg"}, "originals are never written to"),
        (["a.jpg"], {"output": "{}/hard.jpg"}, "originals are never written to"),
        (["link.jpg"], {"output": "{}/a.jpg"}, "originals are never written to"),
        (["a.jpg", "below/a.jpg"], {"output": "{}/below"}, "both be written"),
        (["a.jpg", "below/c.jpg", "c.jpg"], {"output": "{}/below"}, "both be written"),
        (["a.jpg"], {"output": "{}/folder.png"}, "is a folder|a folder or device"),
        (["a.jpg"], {"overwrite": True, "skip_existing": True}, "exclude each other"),
        (["a.jpg"], {"format": "jpge"}, "Did you mean 'jpg'"),
        (["a.jpg"], {"strength": 1.5}, "strength 1.5 is impossible: it must be 0-1"),
        (["a.jpg"], {"strength": math.nan}, "strength nan is impossible: it must be 0-1"),
        (["a.jpg"], {"batch_size": 0}, "at least 1"),
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_cannot_be_planned(
    tmp_path: Path,
    make_image: Callable[..., Path],
    words: list[str],
    options: dict[str, object],
    message: str,
    overwrite: bool,
) -> None:
    for name in ("a.jpg", "b.png", "c.jpg", "below/a.jpg", "below/c.jpg"):
        make_image(tmp_path / name)
    (tmp_path / "link.jpg").symlink_to("a.jpg")
    os.link(tmp_path / "a.jpg", tmp_path / "hard.jpg")
    os.mkfifo(tmp_path / "folder.png")
    before = set(tmp_path.rglob("*"))
    options = {"overwrite": overwrite} | {
        key: value.format(tmp_path) if isinstance(value, str) else value
        for key, value in options.items()
    }
    with pytest.raises(UsageError, match=message):
        plan_batch([str(tmp_path / word) for word in words], BatchOptions(**options))
    assert set(tmp_path.rglob("*")) == before


def test_results_that_share_a_name_are_refused(
    tmp_path: Path, make_image: Callable[..., Path]
) -> None:
    for name in ("a.jpg", "a.png"):
        make_image(tmp_path / name)
    assert len(plan_in(tmp_path, ".")) == 2
    with pytest.raises(UsageError, match=r"a\.jpg'.* would both be written to .*a_derained\.png"):
        plan_in(tmp_path, ".", format="png")


def test_names_that_differ_in_case_or_unicode_form_alone_share_a_name(
    tmp_path: Path, make_image: Callable[..., Path]
) -> None:
    for name in ("X.JPG", "x.jpg"):
        make_image(tmp_path / name)
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this disk does not tell case apart")
    with pytest.raises(UsageError, match="upper and lower case"):
        plan_in(tmp_path, ".", output=str(tmp_path.parent / "elsewhere"))
    # Beside the sources the folder itself proves that it can hold both.
    assert len(plan_in(tmp_path, ".")) == 2
    with pytest.raises(UsageError, match="both be written"):
        plan_in(tmp_path, ".", format="png", output=str(tmp_path.parent / "elsewhere"))
    for name in ("caf\u00e9.jpg", "cafe\u0301.jpg"):
        make_image(tmp_path / "names" / name)
    with pytest.raises(UsageError, match="both be written"):
        plan_in(tmp_path, "names", output=str(tmp_path.parent / "elsewhere"))


def test_existing_results_need_a_decision(photos: Path, make_image: Callable[..., Path]) -> None:
    make_image(photos / "a2_derained.jpg")
    with pytest.raises(UsageError, match=r"a2_derained.jpg' exists already: `skip_existing` keeps"):
        plan_batch([str(photos / "a2.jpg")], BatchOptions())
    with pytest.raises(UsageError, match="exists already"):
        plan_batch([str(photos)], BatchOptions())
    skipping = plan_batch([str(photos)], BatchOptions(skip_existing=True))
    assert [job.skip for job in skipping.jobs] == [True, False]
    # The rain layer is still missing.
    skipping = plan_batch([str(photos)], BatchOptions(skip_existing=True, save_rain=True))
    assert [job.skip for job in skipping.jobs] == [False, False]
    replacing = plan_batch([str(photos)], BatchOptions(overwrite=True))
    assert [job.skip for job in replacing.jobs] == [False, False]


def test_an_input_that_vanishes_meanwhile_ends_no_plan(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def choose(*words: Any) -> Place:
        (photos / "a10.jpg").unlink()
        return choose_place(*words)

    (photos / "a2_derained.jpg").write_bytes(b"done")
    monkeypatch.setattr("derain_cli.batch.plan.choose_place", choose)
    plan = plan_batch([str(photos)], BatchOptions(skip_existing=True))
    assert [(Path(job.name).name, job.skip) for job in plan.jobs] == [
        ("a2.jpg", True),
        ("a10.jpg", False),
    ]


def test_a_device_is_never_replaced(photos: Path) -> None:
    options = BatchOptions(output=os.devnull, format="png", overwrite=True)
    with pytest.raises(UsageError, match="is a device: name a file"):
        plan_batch([str(photos / "a2.jpg")], options)


@pytest.mark.skipif(AS_ROOT, reason="root may write everywhere")
def test_a_read_only_folder_is_found_before_the_first_image(photos: Path) -> None:
    photos.chmod(0o555)
    try:
        with pytest.raises(ResourceError, match="`output` names another folder"):
            plan_batch([str(photos)], BatchOptions())
    finally:
        photos.chmod(0o755)
