"""Data sets from the Hub: one revision, resumable, every file compared with the Hub's SHA-256.

What was pulled is noted in `derain-source.json` inside the folder: repository, commit and digests.
Pulling again keeps to that commit and downloads only what is missing or damaged.
"""

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import huggingface_hub
from huggingface_hub import errors

from derain_cli.datasets.origins import ORIGINS
from derain_cli.errors import DatasetError, ResourceError, UnavailableError, UsageError, first_line
from derain_cli.whole_files import sha256_of, write_whole

NOTE = "derain-source.json"
WORKERS = 4
NAMED = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^@:]+))?", re.ASCII)


@dataclass(frozen=True)
class Source:
    """What a folder was pulled from.

    Attributes:
        repo: `org/repo` of the Hub, of the kind data set.
        revision: Commit.
        files: SHA-256 by name; "" for small files, of which the Hub states none.
    """

    repo: str
    revision: str
    files: dict[str, str] = field(default_factory=dict)


def pull_dataset(
    name: str, data_root: Path, report: Callable[[int, int], None] = lambda done, total: None
) -> tuple[Path, Source]:
    """Download a data set into its folder under `data_root`; returns the folder and its source.

    Args:
        name: A known data set of which the Hub has a copy, or `hf:org/repo[@revision]`.
        data_root: Where data sets lie.
        report: Called with (files that are here, files in all).

    Raises:
        UsageError: A name of neither kind.
        UnavailableError: No copy is known, or the Hub cannot be reached or refuses.
        DatasetError: A file arrived damaged.
        ResourceError: No space or no permission.
    """
    repo, revision = _where(name)
    folder = data_root / (repo.rpartition("/")[2] if name.startswith("hf:") else name)
    before = read_source(folder)
    if before and before.repo == repo and not revision:
        revision = before.revision
    with _our_errors(repo):
        info = huggingface_hub.HfApi().dataset_info(
            repo, revision=revision or None, files_metadata=True
        )
        files = {
            item.rfilename: item.lfs.sha256 if item.lfs else "" for item in info.siblings or ()
        }
    source = Source(repo, str(info.sha), files)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"cannot make {str(folder)!r}: {error.strerror}") from error
    write_whole(folder / NOTE, json.dumps(asdict(source), indent=1).encode())
    with ThreadPoolExecutor(WORKERS, "pulling") as pool:
        arrived = pool.map(lambda file: _bring(source, file, folder), files)
        for done, _ in enumerate(arrived, 1):
            report(done, len(files))
    return folder, source


def read_source(folder: Path) -> Source | None:
    """What a folder was pulled from; None where nothing says so."""
    try:
        return Source(**json.loads((folder / NOTE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _where(name: str) -> tuple[str, str]:
    """Repository and revision ("" = as before, else the newest) of a name."""
    if name.startswith("hf:"):
        match = NAMED.fullmatch(name)
        if match is None:
            raise UsageError(f"{name!r} is not of the form hf:org/repo[@revision]")
        return match["repo"], match["revision"] or ""
    origin = ORIGINS.get(name)
    if origin is None:
        raise UsageError(f"unknown data set {name!r}; `derain datasets list` names them")
    if not origin.hub:
        pages = " or ".join(origin.addresses)
        raise UnavailableError(f"no copy of {name!r} on the Hub is known here; see {pages}")
    return origin.hub, ""


def _bring(source: Source, file: str, folder: Path) -> None:
    """Download a file unless it is here and whole; once more if it arrives damaged."""
    path, expected = folder / file, source.files[file]
    if path.is_file() and expected and sha256_of(path) == expected:
        return
    for again in (False, True):
        with _our_errors(source.repo):
            huggingface_hub.hf_hub_download(
                source.repo,
                file,
                repo_type="dataset",
                revision=source.revision,
                local_dir=folder,
                force_download=again,
                library_name="derain",
            )
        if not expected or sha256_of(path) == expected:
            return
    path.unlink(missing_ok=True)
    raise DatasetError(f"{file!r} of {source.repo!r} arrived damaged: its SHA-256 is not the Hub's")


@contextmanager
def _our_errors(repo: str) -> Iterator[None]:
    """Turn the errors of the Hub's client into one line each."""
    try:
        yield
    except errors.HFValidationError as error:
        raise UsageError(f"{repo!r} is no name that the Hub allows: {error}") from error
    except errors.RepositoryNotFoundError as error:
        raise UnavailableError(
            f"the Hub has no data set {repo!r}; if it is private, run `hf auth login`"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UnavailableError(f"data set {repo!r} has no such revision") from error
    except (
        errors.HfHubHTTPError,
        errors.LocalEntryNotFoundError,
        errors.HTTPError,  # type: ignore[attr-defined]  # httpx's or httpx2's
    ) as error:
        reason = first_line(error)
        raise UnavailableError(f"cannot download data set {repo!r}: {reason}") from error
    except OSError as error:
        if error.errno is None:
            raise UnavailableError(f"cannot download data set {repo!r}: {error}") from error
        raise ResourceError(f"cannot write data set {repo!r}: {error.strerror}") from error
