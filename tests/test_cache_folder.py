"""Where what can be made again is kept."""

from pathlib import Path

import pytest

from derain_cli.cache_folder import cache_folder
from derain_cli.cli.output_files import default_data_root
from derain_cli.errors import ResourceError


def test_an_account_without_a_home_folder_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch):
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    assert cache_folder() == Path.home() / ".cache/derain"
    monkeypatch.setattr(Path, "home", nowhere)
    monkeypatch.delenv("DERAIN_DATA", raising=False)
    for ask in (cache_folder, default_data_root):
        with pytest.raises(ResourceError, match=r"no home folder .* set \$HOME to a folder"):
            ask()
