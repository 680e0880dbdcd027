import dataclasses
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from derain_cli.batch import BatchOptions, plan_batch, read_list
from derain_cli.batch.events import Job
from derain_cli.batch.inputs import natural_order
from derain_cli.errors import DerainError, NothingToDoError, UsageError


def plan_in(folder: Path, *words: str, **options: object) -> dict[str, tuple[str, ...]]:
    """Source -> targets of a plan, relative to a folder."""
    plan = plan_batch([str(folder / word) for word in words], BatchOptions(**options))
    return {
        str(job.source.relative_to(folder)): tuple(str(t.relative_to(folder)) for t in job.targets)
        for job in plan.jobs
    }


def test_folder_in_natural_order_without_the_folders_below(photos: Path) -> None:
    assert list(plan_in(photos.parent, "photos")) == ["photos/a2.jpg", "photos/a10.jpg"]


@pytest.mark.parametrize(
    "names",
    [
        ["IMG_0010.jpg", "IMG_0009.jpg", "IMG_0100.jpg"],  # differ in digits alone
        ["a10.jpg", "a02.jpg", "b01.jpg"],
        ["1a20.jpg", "10a2.jpg", "1a10.jpg"],
        ["a10.jpg", "a9.jpg", "A1.jpg"],
        ["é2.jpg", "é1.jpg"],
        ["٢.jpg", "1.jpg"],
    ],
)
def test_names_of_a_folder_come_in_natural_order(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).touch()
    plan = plan_batch([str(tmp_path)], BatchOptions())
    assert [job.source.name for job in plan.jobs] == sorted(names, key=natural_order)


def test_a_job_takes_paths_and_their_text() -> None:
    one, two = Job(Path("a.jpg"), Path("b/a.jpg")), Job("a.jpg", "b/a.jpg")
    assert one == two
    assert hash(one) == hash(two)
    assert (two.source, two.targets, two.files) == (Path("a.jpg"), (Path("b/a.jpg"),), ("b/a.jpg",))
    assert dataclasses.replace(two, skip=True).derained == Path("b/a.jpg")


def test_recursive_mirrors_the_tree(photos: Path) -> None:
    plan = plan_in(photos.parent, "photos", recursive=True, output=str(photos.parent / "dry"))
    assert plan == {
        "photos/a2.jpg": ("dry/a2.jpg",),
        "photos/a10.jpg": ("dry/a10.jpg",),
        "photos/below/b.png": ("dry/below/b.png",),
    }


def test_dot_files_links_to_folders_sockets_and_texts_are_not_found(
    photos: Path, make_image: Callable[..., Path]
) -> None:
    before = plan_in(photos.parent, "photos", recursive=True)
    make_image(photos / ".hidden.jpg")
    make_image(photos / ".folder" / "c.jpg")
    (photos / "loop").symlink_to(photos)
    (photos / "self.jpg").symlink_to("self.jpg")
    (photos / "dangling.png").symlink_to("nowhere.png")
    (photos / "notes.txt").write_text("rain")
    (photos / "folder.jpg").mkdir()
    os.mkfifo(photos / "pipe.jpg")
    # A socket's path may not be long, pytest's is.
    server = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    try:
        os.chdir(photos)
        server.bind("socket.jpg")
    finally:
        os.chdir(here)
        server.close()
    assert plan_in(photos.parent, "photos", recursive=True) == before


def test_images_that_are_not_read_and_dead_links_are_left_out_by_name(photos: Path) -> None:
    (photos / "IMG_1.CR2").write_bytes(b"II*\0")
    (photos / "layers.psd").write_bytes(b"8BPS")
    (photos / "dead.jpg").symlink_to("nowhere.jpg")
    plan = plan_batch([str(photos)], BatchOptions())
    assert [(Path(item.path).name, item.reason) for item in plan.passed_over] == [
        ("dead.jpg", "a link that leads nowhere"),
        ("IMG_1.CR2", "a camera RAW file; develop it and export a 16-bit TIFF"),
        ("layers.psd", "a Photoshop document; export it as PNG or 16-bit TIFF"),
    ]


def test_own_results_are_never_inputs(photos: Path, make_image: Callable[..., Path]) -> None:
    for name in ("a2_derained.jpg", "a2_derained_rain.jpg", "a2_derained_compare.jpg"):
        make_image(photos / name)
    plan = plan_batch([str(photos)], BatchOptions(skip_existing=True))
    assert [job.source.name for job in plan.jobs] == ["a2.jpg", "a10.jpg"]
    assert len(plan.passed_over) == 3
    with pytest.raises(NothingToDoError, match="result of this program"):
        plan_batch([str(photos / "a2_derained.jpg")], BatchOptions())
    # Whoever names it and another suffix means it.
    assert plan_in(photos, "a2_derained.jpg", suffix="_twice") == {
        "a2_derained.jpg": ("a2_derained_twice.jpg",)
    }


@pytest.mark.parametrize("word", ["photos", "photos/**/*.*"])
def test_the_output_folder_is_never_an_input(
    photos: Path, make_image: Callable[..., Path], word: str
) -> None:
    dry = photos / "dry"
    make_image(dry / "below" / "older.jpg")
    plan = plan_in(photos.parent, word, recursive=True, output=str(dry))
    assert set(plan) == {"photos/a2.jpg", "photos/a10.jpg", "photos/below/b.png"}


def test_a_image_that_is_named_twice_is_derained_once(photos: Path) -> None:
    plan = plan_in(photos.parent, "photos/a2.jpg", "photos", "photos/below/../a2.jpg")
    assert list(plan) == ["photos/a2.jpg", "photos/a10.jpg"]


def test_a_name_with_brackets_is_a_name_before_it_is_a_pattern(
    tmp_path: Path, make_image: Callable[..., Path]
) -> None:
    for name in ("[ab].jpg", "a.jpg", "b.jpg"):
        make_image(tmp_path / name)
    assert list(plan_in(tmp_path, "[ab].jpg")) == ["[ab].jpg"]
    (tmp_path / "[ab].jpg").unlink()
    assert list(plan_in(tmp_path, "[ab].jpg")) == ["a.jpg", "b.jpg"]


def test_a_pattern_mirrors_below_its_fixed_part_and_skips_dot_files(
    photos: Path, make_image: Callable[..., Path]
) -> None:
    make_image(photos / ".thumbnails" / "b.png")
    (photos / "loop").symlink_to(photos)
    plan = plan_in(photos.parent, "photos/**", output=str(photos.parent / "dry"))
    assert plan["photos/below/b.png"] == ("dry/below/b.png",)
    assert len(plan) == 3


def test_a_list_takes_names_as_they_are_and_keeps_relative_folders(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    listed = read_list(b"below/b.png\r\n\na2.jpg\n*.jpg\n")
    plan = plan_batch([], BatchOptions(output="../dry"), listed)
    assert [job.derained for job in plan.to_do] == [
        Path("../dry/below/b.png"),
        Path("../dry/a2.jpg"),
    ]
    assert [job.problem for job in plan.jobs][2:] == ["no such file or folder: '*.jpg'"]


def test_a_list_ended_by_nul_may_hold_line_breaks() -> None:
    assert read_list(b"a\nb.jpg\0c.jpg\0") == ("a\nb.jpg", "c.jpg")


def test_a_list_may_say_how_it_is_encoded() -> None:
    text = "näss.jpg\r\nb/c.jpg\r\n"
    for encoding in ("utf-8-sig", "utf-16", "utf-16-be"):
        mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
        assert read_list(mark + text.encode(encoding)) == ("näss.jpg", "b/c.jpg"), encoding
    with pytest.raises(UsageError, match="begins as UTF-16 and is not"):
        read_list(b"\xff\xfea")


def test_a_image_is_no_list(photos: Path) -> None:
    with pytest.raises(UsageError, match="takes a list of paths"):
        read_list((photos / "a2.jpg").read_bytes())
    assert read_list(b"BMW.jpg\n") == ("BMW.jpg",)  # begins like a BMP image


def test_missing_names_are_failures_of_their_own(photos: Path) -> None:
    plan = plan_batch([str(photos), str(photos / "gone.jpg")], BatchOptions())
    assert len(plan.to_do) == 2
    assert plan.jobs[-1].problem == f"no such file or folder: {str(photos / 'gone.jpg')!r}"


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ([], UsageError, "no inputs"),
        ([""], UsageError, "empty name"),
        (["-", "a.jpg"], UsageError, "only input"),
        (["{}/empty"], NothingToDoError, "no image in this folder; -r looks"),
        (["{}/*.jpg"], NothingToDoError, "no image matches"),
    ],
)
def test_inputs_that_name_nothing(
    tmp_path: Path, words: list[str], error: type[DerainError], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(error, match=message):
        plan_batch([word.format(tmp_path) for word in words], BatchOptions())
