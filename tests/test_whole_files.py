"""Files are there whole, or as they were."""

import resource
from pathlib import Path

import pytest

from derain_cli.cli.output_files import default_data_root
from derain_cli.errors import ResourceError
from derain_cli.whole_files import cache_folder, write_whole_file


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    for content in (b"old", memoryview(b"new")):
        write_whole_file(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_replaced_where_that_is_not_wanted(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "file").write_bytes(b"mine")
    for name in ("link", "file"):
        with pytest.raises(FileExistsError):
            write_whole_file(tmp_path / name, b"new", replace=False)
    assert (tmp_path / "file").read_bytes() == b"mine"
    assert (tmp_path / "link").is_symlink()
    write_whole_file(tmp_path / "free", b"new", replace=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "free", "link"]


def test_a_disk_that_is_full_leaves_the_old_file_and_no_part(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            write_whole_file(path, bytes(99_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_others_may_read_what_they_may_read_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    for replace in (True, False):
        write_whole_file(tmp_path / f"{replace}", b"new", replace=replace)
        assert (tmp_path / f"{replace}").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_account_without_a_home_folder_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch):
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    assert cache_folder() == Path.home() / ".cache/derain"
    monkeypatch.setattr(Path, "home", nowhere)
    monkeypatch.delenv("DERAIN_DATA", raising=False)
    for ask in (cache_folder, default_data_root):
        with pytest.raises(ResourceError, match=r"no home folder .* set \$HOME to a folder"):
            ask()
