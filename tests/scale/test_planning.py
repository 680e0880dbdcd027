"""Batches of addresses, planned while they are listed; fsspec's memory is the server."""

import importlib.util
import threading
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from derain_cli.batch import BatchOptions, Interrupter
from derain_cli.batch.decoding import Decoding
from derain_cli.batch.events import Job, Plan
from derain_cli.batch.writing import Claims
from derain_cli.cli.scaling import events_of
from derain_cli.errors import NothingToDoError, UsageError
from derain_cli.scale import fetching, planning
from derain_cli.scale.addresses import Address
from derain_cli.scale.fetching import fetch_ahead, listed_ahead
from derain_cli.scale.planning import names_addresses, plan_addresses

REPLACE = {"overwrite": True}


@pytest.fixture
def memory() -> Iterator[Any]:
    import fsspec

    files = fsspec.filesystem("memory")
    names = ("a.jpg", "b.png", "notes.txt", ".hidden.jpg", "c_derained.jpg", "below/d.jpg")
    files.pipe({f"/in/{name}": name.encode() for name in names})
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def planned(words: list[str], **options: Any) -> dict[str, str]:
    """Target by source, as text."""
    jobs = plan_addresses(words, BatchOptions(**options)).jobs
    return {job.name: job.problem or ("skip " * job.skip + str(job.derained)) for job in jobs}


def test_a_folder_is_mirrored(memory: Any) -> None:
    assert planned(["memory://in"], output="memory://out/", recursive=True) == {
        "memory://in/a.jpg": "memory://out/a.jpg",
        "memory://in/b.png": "memory://out/b.png",
        "memory://in/below/d.jpg": "memory://out/below/d.jpg",
    }


def test_results_lie_beside_their_inputs(memory: Any) -> None:
    assert planned(["memory://in/"]) == {
        "memory://in/a.jpg": "memory://in/a_derained.jpg",
        "memory://in/b.png": "memory://in/b_derained.png",
    }


def test_a_local_folder_to_an_address_and_back(memory: Any, photos: Path, tmp_path: Path) -> None:
    up = planned([str(photos)], output="memory://out")
    assert up[str(photos / "a2.jpg")] == "memory://out/a2.jpg"
    down = planned(["memory://in/a.jpg"], output=f"{tmp_path}/x.png")
    assert down == {"memory://in/a.jpg": str(tmp_path / "x.png")}


@pytest.mark.parametrize("word", ["a2.jpg", "./a2.jpg"])
def test_one_image_goes_to_the_address_of_a_file_however_it_is_named(
    memory: Any, photos: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    monkeypatch.chdir(photos)
    assert planned([word], output="memory://out/dry.jpg") == {
        str(Path(word)): "memory://out/dry.jpg"
    }


def test_what_is_there_is_skipped_or_refused_alone(memory: Any) -> None:
    memory.pipe("/out/a.jpg", b"done")
    kept = planned(["memory://in"], output="memory://out", skip_existing=True)
    assert kept["memory://in/a.jpg"] == "skip memory://out/a.jpg"
    refused = planned(["memory://in"], output="memory://out")
    assert refused["memory://in/a.jpg"].startswith("'memory://out/a.jpg' exists already")
    assert refused["memory://in/b.png"] == "memory://out/b.png"


def test_two_results_of_one_name(memory: Any) -> None:
    memory.pipe("/in/a.png", b"x")
    jobs = planned(["memory://in"], output="memory://out", format="png")
    assert "another image of this batch" in jobs["memory://in/a.png"]


def test_an_address_that_is_named_twice_is_done_once(memory: Any) -> None:
    plan = plan_addresses(["memory://in/a.jpg"] * 2, BatchOptions(output="memory://out/"))
    assert [str(job.derained) for job in plan.jobs] == ["memory://out/a.jpg"]


def test_a_film_is_named_as_one(memory: Any, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    jobs = planned([str(tmp_path)], output="memory://out")
    assert "is a film: films are derained from file to file" in jobs[f"{tmp_path}/clip.mp4"]


def test_a_list_keeps_its_folders(
    memory: Any, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    listed = (f"{photos.name}/a2.jpg", "memory://in/below/d.jpg")
    jobs = plan_addresses([], BatchOptions(output="memory://out"), listed=listed).jobs
    assert [str(job.derained) for job in jobs] == [
        f"memory://out/{photos.name}/a2.jpg",
        "memory://out/d.jpg",
    ]


def test_no_original_is_replaced(memory: Any, photos: Path) -> None:
    beside = planned(["memory://in/a.jpg", "memory://in/b.png"], output="memory://in/", **REPLACE)
    assert all("would replace the input" in problem for problem in beside.values())
    memory.pipe("/in/b.jpg", b"x")
    words = ["memory://in/b.png", "memory://in/b.jpg"]
    other = planned(words, output="memory://in/", format="jpg", **REPLACE)
    assert "would replace the input 'memory://in/b.jpg'" in other["memory://in/b.png"]
    local = planned([f"{photos}/a2.jpg", "memory://in/a.jpg"], output=f"{photos}/./", **REPLACE)
    assert "would replace the input" in local[str(photos / "a2.jpg")]
    kept = planned(["memory://in/a.jpg"], output="memory://in/", skip_existing=True)
    assert "would replace the input" in kept["memory://in/a.jpg"]
    with pytest.raises(UsageError, match="`suffix` is empty"):
        planned(["memory://in/"], suffix="", **REPLACE)
    with pytest.raises(UsageError, match="is the input folder itself"):
        planned(["memory://in/a.jpg", str(photos)], output=str(photos), **REPLACE)


def test_a_name_does_not_lead_out_of_the_output_folder(
    memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = Address("memory://in/../../evil.jpg"), PurePosixPath("../../evil.jpg")
    monkeypatch.setattr(planning, "list_files", lambda _url, recursive: iter([odd]))
    jobs = planned(["memory://in/"], output="dry/", recursive=True)
    assert "would lead out of 'dry/'" in jobs["memory://in/../../evil.jpg"]
    memory.pipe("/in/..%2F..%2Fx.jpg", b"x")
    assert planned(["memory://in/..%2F..%2Fx.jpg"], output="dry/") == {
        "memory://in/..%2F..%2Fx.jpg": "dry/x.jpg"
    }


def test_a_shard_is_a_part(memory: Any) -> None:
    plan = plan_addresses(
        ["memory://in"], BatchOptions(output="memory://out"), lambda relative: relative == "b.png"
    )
    assert plan.is_open
    assert [job.relative for job in plan.jobs] == ["b.png"]
    assert len(plan.jobs) == 1


needs_http = pytest.mark.skipif(
    importlib.util.find_spec("aiohttp") is None, reason="needs aiohttp: the extra http"
)


@pytest.mark.parametrize(
    ("words", "options", "message"),
    [
        (["memory://in"], {"output": "https://host/out/"}, "is only read"),
        pytest.param(["https://host/a.jpg"], {}, "is only read", marks=needs_http),
        (["memory://in"], {"output": "hf://org/name"}, "upload-large-folder"),
        (["ftp://host/a.jpg"], {"output": "out/"}, "unknown kind of address 'ftp'"),
        (["-"], {"output": "memory://out/"}, "an image on stdin"),
        (["memory://in"], {"output": "memory://out/", "frames": "all"}, "from file to file"),
        (["memory://in"], {"output": "memory://dry.jpg"}, "'memory://dry.jpg' would be a folder"),
        (["memory://in"], {"output": "dry.jpg"}, "'dry.jpg' would be a folder"),
        (["memory://in"], {"output": "-"}, "takes one image"),
        (["memory://in/a.jpg"], {"output": "memory://b.png", "format": "webp"}, "is no webp file"),
        (["memory://in/a.jpg", "memory://in/b.png"], {"output": "-"}, "takes one image"),
        (["memory://in/a.jpg"], {"output": "-", "save_rain": True}, "stdout holds one image"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be(
    memory: Any, words: list[str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        plan_addresses(words, BatchOptions(**options))


def test_nothing_there(memory: Any) -> None:
    with pytest.raises(NothingToDoError, match="no image at memory://in/below/e"):
        plan_addresses(["memory://in/below/e/"], BatchOptions(output="memory://out/"))


def test_what_names_an_address() -> None:
    assert names_addresses(["a.jpg"], "s3://bucket/")
    assert not names_addresses(["a.jpg", "C:\\photos"], None)


class SlowFile(Address):
    """A file of a server that takes a while, and counts what is under way."""

    under_way, most = 0, 0
    lock = threading.Lock()

    def read_bytes(self) -> bytes:
        with self.lock:
            SlowFile.under_way += 1
            SlowFile.most = max(SlowFile.most, SlowFile.under_way)
        time.sleep(0.05)
        with self.lock:
            SlowFile.under_way -= 1
        return b"x"


def test_files_are_fetched_ahead_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "BYTES_AHEAD", 10)
    jobs = tuple(Job(SlowFile(f"memory://in/{i}.jpg", size=1)) for i in range(40))
    contents = [job.source.read_bytes() for job in fetch_ahead(Plan(jobs)).jobs]
    assert contents == [b"x"] * 40
    assert 5 < SlowFile.most <= 11


def test_a_single_file_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []

    def read(address: Address) -> bytes:
        fetched.append(address.url)
        return b"no image"

    monkeypatch.setattr(Address, "read_bytes", read)
    plan = Plan((Job(Address("memory://in/a.jpg"), tmp_path / "a.png"),))
    watched = (b"", Interrupter(), lambda _job, _share: None)
    *_, summary = events_of(plan, None, None, BatchOptions(), {}, None, *watched)
    assert len(summary.failures) == 1
    assert fetched == ["memory://in/a.jpg"]


class StrangeFile(Address):
    """A file whose client raises what nobody foresaw."""

    def read_bytes(self) -> bytes:
        raise ValueError("an answer that the client does not understand")


def test_what_a_client_raises_fails_its_image_and_not_the_batch() -> None:
    (job,) = fetch_ahead(Plan((Job(StrangeFile("memory://in/a.jpg"), Path("a.png")),))).jobs
    assert job.source.decoded_size == 0
    decoding = Decoding(BatchOptions(), b"", Claims())
    (result,) = decoding.groups([job])
    assert "unexpected ValueError: an answer" in str(result.error)


def test_a_listing_is_read_ahead_and_its_failure_is_raised() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise OSError("the server is gone")

    taken = []
    with pytest.raises(OSError, match="gone"):
        taken.extend(listed_ahead(items()))
    ahead = listed_ahead(iter(range(100_000)))
    assert next(ahead) == 0
    ahead.close()
