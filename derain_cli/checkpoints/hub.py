"""Checkpoints on the Hugging Face Hub, named `hf:org/repo[@revision][:file]`.

The Hub's own client moves the bytes into its own cache, so `HF_HOME`, `HF_ENDPOINT`,
`HF_HUB_OFFLINE`, `HF_TOKEN` and `hf auth login` mean what they mean everywhere: it locks a file
against a second process, goes on with a connection that broke, and renames what is whole into
place. Added here: one request tells whether the Hub can be reached, because the client alone tries
for 20 seconds; what arrived is compared with the digest that the Hub states; pickled files are
refused by name; and every failure becomes one line.
"""

import errno
import hashlib
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# Loads next to nothing: each name of the client, and its errors with it, loads on first use.
import huggingface_hub
import huggingface_hub.constants

from derain_cli.errors import (
    CheckpointError,
    DerainError,
    ResourceError,
    UnavailableError,
    UsageError,
)
from derain_cli.version import __version__

# Where our own weights lie that are not bundled; entries of weights.toml may name another.
WEIGHTS_REPO = "derain-cli/weights"
PREFIX = "hf:"
CHECKPOINT_FILE = "model.safetensors"
CARD_FILE = "README.md"
COMMIT = re.compile("[0-9a-f]{40}")
SHA256 = re.compile("[0-9a-f]{64}")
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


@dataclass(frozen=True)
class HubFile:
    """A file of a repository; a revision is a branch, a tag or a commit, "" the main branch."""

    repo: str
    revision: str = ""
    file: str = CHECKPOINT_FILE

    @classmethod
    def parse(cls, text: str) -> "HubFile":
        """The file that `hf:org/repo[@revision][:file]` names.

        Raises:
            UsageError: Not of this form.
            CheckpointError: A file that is no safetensors file: those are never downloaded.

        Example:
            >>> HubFile.parse("hf:me/rainfree@v1:small.safetensors")
            HubFile(repo='me/rainfree', revision='v1', file='small.safetensors')
        """
        name = r"\w([\w.-]*\w)?"
        form = re.fullmatch(
            rf"hf:(?P<repo>{name}/{name})(@(?P<revision>[^:@]+))?(:(?P<file>[^:]+))?",
            text,
            re.ASCII,
        )
        if not form or ".." in text or "--" in form["repo"]:
            raise UsageError(f"{text!r} is not of the form hf:org/repo[@revision][:file]")
        file = form["file"] or CHECKPOINT_FILE
        if not file.endswith(".safetensors"):
            raise CheckpointError(
                f"{text!r} is no safetensors file; pickled files of strangers are never loaded"
            )
        return cls(form["repo"], form["revision"] or "", file)

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        file = f":{self.file}" if self.file != CHECKPOINT_FILE else ""
        return f"{PREFIX}{self.repo}{revision}{file}"

    @property
    def pinned(self) -> bool:
        """Whether it can never change: the revision is a commit."""
        return bool(COMMIT.fullmatch(self.revision))


def find_cached(source: HubFile) -> Path | None:
    """The file in the Hub's cache, without a word to the network; None when it is not there."""
    with _told(source):
        found = huggingface_hub.try_to_load_from_cache(
            source.repo, source.file, revision=source.revision or None
        )
    return Path(found) if isinstance(found, str) else None


def download(source: HubFile, *, again: bool = False) -> Path:
    """The file, brought into the Hub's cache if it is not there in this revision.

    Args:
        source: What to download.
        again: Replace what is cached, because it is damaged.

    Raises:
        UnavailableError: No network, no such file, or no right to it.
        CheckpointError: What arrived is not what the Hub states.
        ResourceError: No space or no permission.
    """
    revision = source.revision or None
    with _told(source):
        url = huggingface_hub.hf_hub_url(source.repo, source.file, revision=revision)
        timeout = huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT
        stated = huggingface_hub.get_hf_file_metadata(url, timeout=timeout)
        path = Path(
            huggingface_hub.hf_hub_download(
                source.repo,
                source.file,
                revision=revision,
                force_download=again,
                library_name="derain",
                library_version=__version__,
            )
        )
    try:
        check_stated_sha256(path, stated.etag or "")
    except CheckpointError:
        forget(path)
        raise
    return path


def check_stated_sha256(path: Path, stated: str = "") -> None:
    """Compare a cached file with the digest that the Hub stated for it.

    Args:
        path: File in the Hub's cache, which names its blobs by that digest.
        stated: Digest to use where the cache cannot make links (Windows without developer mode)
            and so does not keep it; without one there is nothing to compare with.

    Raises:
        CheckpointError: They differ.
    """
    stated = path.readlink().name if path.is_symlink() else stated
    if SHA256.fullmatch(stated):
        check_sha256(path, stated)


def check_sha256(path: Path, expected: str) -> None:
    """Compare a file's SHA-256 with the one it must have.

    Raises:
        CheckpointError: They differ; both are quoted.
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise CheckpointError(
            f"{str(path)!r} is damaged or not the file that was released: its SHA-256 is "
            f"{found[:12]}…, expected {expected[:12]}…"
        )


def forget(path: Path) -> None:
    """Take a damaged file out of the cache, so that it is not found again."""
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def upload(
    repo: str,
    files: Mapping[str, bytes],
    message: str,
    *,
    private: bool = False,
    new_card: bool = False,
) -> str:
    """Put files into a repository in one commit; the repository is made when there is none.

    Args:
        repo: `org/repo`.
        files: Name to content. A model card that is there already is left alone.
        message: Of the commit.
        private: Whether a new repository is private.
        new_card: Replace a model card that is there already.

    Returns:
        The commit.

    Raises:
        UnavailableError: No network, no token, or no right to write there.
    """
    if not huggingface_hub.get_token():
        raise UnavailableError(
            f"cannot upload to {repo!r} without a token: run `hf auth login`, or set HF_TOKEN"
        )
    api = huggingface_hub.HfApi(library_name="derain", library_version=__version__)
    with _told(HubFile(repo), uploading=True):
        keep_card = api.file_exists(repo, CARD_FILE) and not new_card
        kept = {CARD_FILE} if keep_card else set()
        changes = [
            huggingface_hub.CommitOperationAdd(name, files[name]) for name in files.keys() - kept
        ]
        api.create_repo(repo, private=private, exist_ok=True)
        commit: str = api.create_commit(repo, changes, commit_message=message).oid
    return commit


@contextmanager
def _told(source: HubFile, *, uploading: bool = False) -> Iterator[None]:
    """Turn what the Hub's client raises into errors of ours, and keep its warnings to itself."""
    log = logging.getLogger("huggingface_hub")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        told = _our_error(error, source, uploading)
        if told is None:
            raise
        raise told from error
    finally:
        log.setLevel(level)


def _our_error(error: Exception, source: HubFile, uploading: bool) -> DerainError | None:
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        where = f" {error.filename!r}" if error.filename else " the Hub's cache"
        return ResourceError(f"cannot write{where} for {source}: {error.strerror}")
    reason = _reason(error, source)
    # What goes wrong in the client's threads, and names and cards that it finds fault with.
    if reason is None and isinstance(error, RuntimeError | ValueError):
        reason = _first_line(error.__cause__ or error)
    if reason is None:
        return None
    what = "cannot upload to" if uploading else "cannot download"
    return UnavailableError(f"{what} '{source}': {reason}")


def _reason(error: BaseException, source: HubFile) -> str | None:
    """Why the Hub's client failed, and the way out; None when it is no failure of the Hub."""
    errors, endpoint = huggingface_hub.errors, huggingface_hub.constants.ENDPOINT
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set and it is not cached"
    if isinstance(error, errors.GatedRepoError):
        page = f"{endpoint}/{source.repo}"
        return f"access must be asked for at {page}; then run `hf auth login`, or set HF_TOKEN"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "no such repository; if it is private, run `hf auth login` or set HF_TOKEN"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the repository has no revision {source.revision!r}"
    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__:
        return _reason(error.__cause__, source)
    if isinstance(error, errors.EntryNotFoundError):
        return f"the repository has no file {source.file!r}{_what_it_holds(source)}"
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        hint = "; run `hf auth login`, or set HF_TOKEN" if status in (401, 403) else ""
        return f"the Hub answered {status}{hint}"
    if isinstance(error, errors.HTTPError):  # type: ignore[attr-defined]  # httpx's or httpx2's
        return f"cannot reach {endpoint} ({_first_line(error)})"
    if isinstance(error, OSError) and error.errno is None:
        return _first_line(error)
    return None


def _what_it_holds(source: HubFile) -> str:
    """The checkpoints that a repository does hold, to put behind "no such file"."""
    try:
        info = huggingface_hub.HfApi().model_info(
            source.repo, revision=source.revision or None, timeout=5
        )
    except huggingface_hub.errors.HTTPError:  # type: ignore[attr-defined]
        return ""
    names = [item.rfilename for item in info.siblings or ()]
    ours = [name for name in names if name.endswith(".safetensors")]
    if ours:
        return f"; name one of its own: {', '.join(f'{PREFIX}{source.repo}:{n}' for n in ours)}"
    return "; it holds no safetensors file, and pickled files of strangers are never loaded"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(". ") if lines else type(error).__name__
