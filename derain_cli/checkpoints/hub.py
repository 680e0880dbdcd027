"""Checkpoints on the Hugging Face Hub, named `hf:org/repo[@revision][:file]`.

The Hub's own client moves the bytes into its own cache, so `HF_HOME`, `HF_ENDPOINT`,
`HF_HUB_OFFLINE`, `HF_TOKEN` and `hf auth login` mean what they mean everywhere: it locks a file
against a second process, resumes broken connections, and renames complete files into place. Added
here: one request tests whether the Hub can be reached, because the client alone tries for 20
seconds; answers are bounded in bytes and in time; files are compared with the digest that the Hub
states; pickled files are refused by name; and every failure becomes one line.
"""

import errno
import hashlib
import logging
import re
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Loads next to nothing: each name of the client, and its errors with it, loads on first use.
import huggingface_hub
import huggingface_hub.constants

from derain_cli.errors import (
    CheckpointError,
    DerainError,
    ResourceError,
    UnavailableError,
    UsageError,
    first_line,
)
from derain_cli.version import __version__
from derain_cli.whole_files import sha256_of

# Where our own weights lie that are not bundled; entries of weights.toml may name another.
WEIGHTS_REPO = "derain-cli/weights"
PREFIX = "hf:"
CHECKPOINT_FILE = "model.safetensors"
CARD_FILE = "README.md"
COMMIT = re.compile("[0-9a-f]{40}")
SHA256 = re.compile("[0-9a-f]{64}")
DIGEST = re.compile("[0-9a-f]{64}|[0-9a-f]{40}")
TIMEOUT = 600.0  # seconds for a whole download
MOST_IN_ANSWER = 1 << 20  # bytes that any answer of the Hub may hold, whatever is downloaded
# The client makes names of folders and files of these headers.
_PATHS_IN_HEADERS = {
    "x-linked-etag": re.compile(r"[\w-]{1,128}"),
    "etag": re.compile(r"[\w-]{1,128}"),
    "x-repo-commit": COMMIT,
}
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
            CheckpointError: The file is not a safetensors file; others are never downloaded.

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
                f"{text!r} is not a safetensors file; pickled files of strangers are never loaded"
            )
        return cls(form["repo"], form["revision"] or "", file)

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        file = f":{self.file}" if self.file != CHECKPOINT_FILE else ""
        return f"{PREFIX}{self.repo}{revision}{file}"

    @property
    def pinned(self) -> bool:
        """Whether the file can never change, because the revision is a commit."""
        return bool(COMMIT.fullmatch(self.revision))


def find_cached(source: HubFile) -> Path | None:
    """The file in the Hub's cache, or None. Makes no network request."""
    with translated_errors(source):
        found = huggingface_hub.try_to_load_from_cache(
            source.repo, source.file, revision=source.revision or None
        )
    return Path(found) if isinstance(found, str) else None


def download(source: HubFile, *, again: bool = False, timeout: float | None = None) -> Path:
    """The file in the Hub's cache, downloaded if this revision is not cached.

    Args:
        source: What to download.
        again: Replace the cached file, because it is damaged.
        timeout: Seconds that the whole of it may take; None: `TIMEOUT`.

    Raises:
        UnavailableError: No network, no such file, no access, or not complete in time.
        CheckpointError: The download differs from its stated digest, or there is none.
        ResourceError: No space or no permission.
    """
    revision = source.revision or None
    seconds = TIMEOUT if timeout is None else timeout
    bounds = _Bounds(source, time.monotonic() + seconds, seconds)
    with translated_errors(source), bounds.watching():
        url = huggingface_hub.hf_hub_url(source.repo, source.file, revision=revision)
        stated = huggingface_hub.get_hf_file_metadata(
            url, timeout=huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT
        )
        digest = stated.etag or ""
        if not DIGEST.fullmatch(digest) or stated.size is None:
            raise CheckpointError(f"cannot download '{source}': the Hub states no digest or size")
        bounds.most_bytes = stated.size
        try:
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
        except DerainError:
            _forget_incomplete(source, digest)
            raise
    try:
        check_stated_digest(path, digest)
    except CheckpointError:
        forget(path)
        raise
    return path


def _forget_incomplete(source: HubFile, digest: str) -> None:
    """Remove the part of an abandoned download, so that nothing resumes it."""
    from huggingface_hub.file_download import repo_folder_name  # noqa: PLC0415 (as the others)

    name = repo_folder_name(repo_id=source.repo, repo_type="model")
    blobs = Path(huggingface_hub.constants.HF_HUB_CACHE) / name / "blobs"
    for path in blobs.glob(f"{digest}*.incomplete"):
        path.unlink(missing_ok=True)


@dataclass
class _Bounds:
    """Limits on what a server may send during a download.

    Attributes:
        source: The file to download.
        end: Time at which the download is abandoned, by `time.monotonic`.
        seconds: Time limit of the whole download.
        most_bytes: Size limit of any answer.
    """

    source: HubFile
    end: float
    seconds: float
    most_bytes: int = MOST_IN_ANSWER

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Bound every answer to the Hub's client within the block."""
        hooks = huggingface_hub.get_session().event_hooks
        client_hooks = {name: list(some) for name, some in hooks.items()}
        client_hooks.setdefault("response", []).append(self._look)
        huggingface_hub.get_session().event_hooks = client_hooks
        # The other way to download reads no answer that could be bounded.
        before = huggingface_hub.constants.HF_HUB_DISABLE_XET
        huggingface_hub.constants.HF_HUB_DISABLE_XET = True
        try:
            yield
        finally:
            huggingface_hub.constants.HF_HUB_DISABLE_XET = before
            huggingface_hub.get_session().event_hooks = hooks

    def _look(self, response: Any) -> None:  # noqa: ANN401 (of whichever HTTP client there is)
        """Refuse headers that would become paths, and bound the body."""
        for name, known in _PATHS_IN_HEADERS.items():
            value = response.headers.get(name, "").removeprefix("W/").strip('"')
            if value and not known.fullmatch(value):
                raise CheckpointError(
                    f"cannot download '{self.source}': the Hub's answer has {name} {value[:80]!r}"
                )
        stream, bounds = response.stream, self

        class Bounded(type(stream)):  # type: ignore[misc]  # the client checks the class
            def __init__(self) -> None:
                """Nothing: another stream holds the data."""

            def __iter__(self) -> Iterator[bytes]:
                read = 0
                for part in stream:
                    read += len(part)
                    bounds.check(read)
                    yield part

            def close(self) -> None:
                stream.close()

        response.stream = Bounded()

    def check(self, read: int) -> None:
        """Check the size and the time of an answer so far.

        Raises:
            CheckpointError: Too many bytes.
            UnavailableError: Too slow.
        """
        if read > max(self.most_bytes, MOST_IN_ANSWER):
            raise CheckpointError(
                f"cannot download '{self.source}': it is longer than the {self.most_bytes:,} bytes "
                "that the Hub states"
            )
        if time.monotonic() > self.end:
            raise UnavailableError(
                f"cannot download '{self.source}': not there after {self.seconds:g} s; a slow "
                "connection may need a larger `timeout`"
            )


def check_stated_digest(path: Path, stated: str = "") -> None:
    """Compare a cached file with the digest that the Hub stated for it.

    Large files have a SHA-256, small ones the id that git gives their content.

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
    elif COMMIT.fullmatch(stated):
        content = path.read_bytes()
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
        if blob.hexdigest() != stated:
            raise CheckpointError(
                f"{str(path)!r} is damaged: its git id is {blob.hexdigest()[:12]}…, expected "
                f"{stated[:12]}…"
            )


def check_sha256(path: Path, expected: str) -> None:
    """Compare a file's SHA-256 with the one it must have.

    Raises:
        CheckpointError: They differ; both are quoted.
    """
    found = sha256_of(path)
    if found != expected:
        raise CheckpointError(
            f"{str(path)!r} is damaged or not the file that was released: its SHA-256 is "
            f"{found[:12]}…, expected {expected[:12]}…"
        )


def forget(path: Path) -> None:
    """Remove a damaged file from the cache."""
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
    """Commit files to a repository, creating it if necessary.

    Args:
        repo: `org/repo`.
        files: Name to content. An existing model card is left unchanged.
        message: Message of the commit.
        private: Whether a new repository is private.
        new_card: Replace an existing model card.

    Returns:
        The commit.

    Raises:
        UnavailableError: No network, no token, or no write access.
    """
    if not huggingface_hub.get_token():
        raise UnavailableError(
            f"cannot upload to {repo!r} without a token: run `hf auth login`, or set HF_TOKEN"
        )
    api = huggingface_hub.HfApi(library_name="derain", library_version=__version__)
    with translated_errors(HubFile(repo), uploading=True):
        keep_card = api.file_exists(repo, CARD_FILE) and not new_card
        kept = {CARD_FILE} if keep_card else set()
        changes = [
            huggingface_hub.CommitOperationAdd(name, files[name]) for name in files.keys() - kept
        ]
        api.create_repo(repo, private=private, exist_ok=True)
        commit: str = api.create_commit(repo, changes, commit_message=message).oid
    return commit


@contextmanager
def translated_errors(source: HubFile, *, uploading: bool = False) -> Iterator[None]:
    """Convert errors of the Hub's client to ours, and silence its warnings."""
    log = logging.getLogger("huggingface_hub")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        translated = _our_error(error, source, uploading)
        if translated is None:
            raise
        raise translated from error
    finally:
        log.setLevel(level)


def _our_error(error: Exception, source: HubFile, uploading: bool) -> DerainError | None:
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        where = f" {error.filename!r}" if error.filename else " the Hub's cache"
        return ResourceError(f"cannot write{where} for {source}: {error.strerror}")
    reason = _reason(error, source)
    # Errors in the client's threads, and names and cards that it rejects.
    if reason is None and isinstance(error, RuntimeError | ValueError):
        reason = first_line(error.__cause__ or error)
    if reason is None:
        return None
    what = "cannot upload to" if uploading else "cannot download"
    return UnavailableError(f"{what} '{source}': {reason}")


def _reason(error: BaseException, source: HubFile) -> str | None:
    """Reason for a failure of the Hub's client and the way out; None for other errors."""
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
        return f"cannot reach {endpoint} ({first_line(error)})"
    if isinstance(error, OSError) and error.errno is None:
        return first_line(error)
    return None


def _what_it_holds(source: HubFile) -> str:
    """List the checkpoints in a repository, to complete "no such file"."""
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
    return "; it has no safetensors file, and pickled files of strangers are never loaded"
