import json
import threading
from pathlib import Path

import pytest

from derain_cli.errors import UsageError
from derain_cli.scale.manifest import ManifestWriter, Record, merge_manifests, read_manifest


def write(path: Path, *records: Record) -> Path:
    with ManifestWriter(path) as writer:
        for record in records:
            writer.write(record)
    return path


def test_a_record_comes_back_as_it_went(tmp_path: Path) -> None:
    record = Record(
        "/a\udce4.jpg", "done", 3, "17", "w", '{"strength": 1.0}', "/b.jpg", "f", when=1.0
    )
    assert read_manifest(write(tmp_path / "run.jsonl", record)) == {"/a\udce4.jpg": record}


def test_the_last_line_counts_and_a_torn_one_does_not(tmp_path: Path) -> None:
    path = write(tmp_path / "run.jsonl", Record("/a", "failed"), Record("/a", "done"))
    whole = path.read_bytes()
    torn = Record("/b", "done", when=1.0).line()
    path.write_bytes(whole + torn[: len(torn) // 2])
    assert list(read_manifest(path)) == ["/a"]
    write(path, Record("/c", "done"))
    assert [record.status for record in read_manifest(path).values()] == ["done", "done"]


def test_lines_of_threads_and_of_two_runs_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with ManifestWriter(path) as one, ManifestWriter(path) as two:

        def append(writer: ManifestWriter, start: int) -> None:
            for index in range(start, start + 200):
                writer.write(Record(f"/{index}", "done", error="x" * 500))

        threads = [
            threading.Thread(target=append, args=(writer, start))
            for writer, start in ((one, 0), (one, 200), (two, 400), (two, 600))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lines = path.read_bytes().splitlines()
    assert {json.loads(line)["input"] for line in lines} == {f"/{index}" for index in range(800)}
    assert len(lines) == 800


def test_another_file_is_no_manifest(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("a line\nanother\n")
    with pytest.raises(UsageError, match="is not a manifest"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (Record("/a", "done", 3, "17", "w", '{"strength": 1.0}'), ""),
        (Record("/a", "done", 4, "17", "w", '{"strength": 1.0}'), "the input has changed"),
        (Record("/a", "done", 3, "18", "w", '{"strength": 1.0}'), "the input has changed"),
        (Record("/a", "done", 3, "17", "v", '{"strength": 1.0}'), "made with other weights"),
        (
            Record("/a", "done", 3, "17", "w", '{"strength": 0.5}'),
            r"made with other options \(strength 1.0 -> 0.5\)",
        ),
    ],
)
def test_why_a_result_is_outdated(wanted: Record, reason: str) -> None:
    before = Record("/a", "done", 3, "17", "w", '{"strength": 1.0}')
    import re

    assert re.fullmatch(reason, before.outdated_by(wanted))


def test_merged_manifests_show_what_failed_and_what_was_done_twice(tmp_path: Path) -> None:
    one = write(tmp_path / "1", Record("/a", "done"), Record("/b", "failed"), Record("/a", "done"))
    two = write(
        tmp_path / "2", Record("/b", "done"), Record("/c", "failed"), Record("/a", "failed")
    )
    three = write(tmp_path / "3", Record("/a", "done"))
    merged = merge_manifests([one, two])
    assert {key: record.status for key, record in merged.records.items()} == {
        "/a": "done",
        "/b": "done",
        "/c": "failed",
    }
    assert [record.input for record in merged.failed] == ["/c"]
    assert merged.twice == ()
    assert merge_manifests([one, two, three]).twice == ("/a",)
    with pytest.raises(UsageError, match="no such manifest"):
        merge_manifests([tmp_path / "4"])
