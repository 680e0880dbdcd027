"""Addresses of files on other machines (`s3://bucket/key` and its kin), through fsspec.

Credentials come from each service's own configuration (variables, profiles, instance roles) and
are never looked at here. What may carry one in an address, a user before `@` or a query after `?`,
is left out wherever an address is shown or recorded.
"""

import contextlib
import functools
import mimetypes
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

from derain_cli.errors import (
    DerainError,
    DiskError,
    ImageError,
    ResourceError,
    UnavailableError,
    UsageError,
    did_you_mean,
)

# Scheme to the extra that brings its client; None: it comes with this program.
EXTRAS = {
    "s3": "s3",
    "gs": "gs",
    "az": "az",
    "http": "http",
    "https": "http",
    "hf": None,
    "memory": None,
}
READ_ONLY = {
    "http": "http:// is only read",
    "https": "https:// is only read",
    "hf": "hf:// is only read (each file would be a commit of its own; write to a folder and "
    "upload it whole with 'hf upload-large-folder')",
}
# Packages of the clients, whose errors are no bugs of ours.
FOREIGN = frozenset(
    {"aiohttp", "azure", "botocore", "gcsfs", "google", "httpx", "huggingface_hub", "s3fs"}
)
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
Result = TypeVar("Result")
PAGE = 1000  # keys of one request, the most that S3 gives
CONNECTIONS = 64  # of one client; its own default, 10, would hold back the reading ahead


def is_address(word: object) -> bool:
    """Whether a word names a place beyond this machine's files.

    Example:
        >>> is_address("s3://bucket/rainy/"), is_address("photos/a.jpg")
        (True, False)
    """
    return isinstance(word, str) and SCHEME.match(word) is not None


def shown(url: str) -> str:
    """An address without what may be a credential.

    Example:
        >>> shown("https://me:secret@host/a.jpg?token=secret")
        'https://host/a.jpg'
    """
    if "?" not in url and "@" not in url and "#" not in url:
        return url
    scheme, place, path, _query, _fragment = urlsplit(url)
    if scheme not in ("http", "https"):
        return url  # keys of object stores may hold these signs
    return urlunsplit((scheme, place.rpartition("@")[2], path, "", ""))


@dataclass(frozen=True)
class Address:
    """A file beyond this machine, known by its address.

    Attributes:
        url: The whole address.
        size: Its bytes, where a listing said so.
        version: What changes with its content (an ETag or a time), where a listing said so.
    """

    url: str
    size: int | None = field(default=None, compare=False)
    version: str = field(default="", compare=False)

    def __str__(self) -> str:
        return shown(self.url)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(urlsplit(self.url).path if self._is_http else self.url).name

    @property
    def suffix(self) -> str:
        """The ending of the name."""
        return PurePosixPath(self.name).suffix

    @property
    def decoded_size(self) -> int:
        """Not known before the file was read."""
        return 0

    @property
    def _is_http(self) -> bool:
        return self.url.startswith("http")

    def below(self, relative: PurePosixPath) -> "Address":
        """The address of something in this folder."""
        return Address(f"{self.url.rstrip('/')}/{relative}")

    def beside(self, name: str) -> "Address":
        """The address of another name in the same folder."""
        return Address(f"{self.url.rpartition('/')[0]}/{name}")

    def read_bytes(self) -> bytes:
        """The whole content.

        Raises:
            DerainError: It is not there, may not be read, or cannot be reached.
        """
        files, path = open_files(self.url)
        with translated(self.url, "read"):
            content: bytes = _with_retries(lambda: files.cat_file(path))
        return content

    def write_whole(self, content: bytes, *, overwrite: bool) -> bool:
        """Write in one request, so that the name never shows a part of the content.

        Returns:
            Whether the content is there now; False where something else is and stays.

        Raises:
            DerainError: It may not be written or cannot be reached.
        """
        files, path = open_files(self.url)
        try:
            with translated(self.url, "written"):
                _put(files, path, content, _kind_of(self.url), overwrite=overwrite)
        except FileExistsError:
            # A request whose answer was lost, or a task that a cluster does again, meets its own
            # first result.
            return self.read_bytes() == content
        return True

    def exists(self) -> bool:
        """Whether something is there."""
        files, path = open_files(self.url)
        with translated(self.url, "read"):
            return bool(files.exists(path))


def _put(
    files: Any,  # noqa: ANN401 (fsspec has no types)
    path: str,
    content: bytes,
    kind: Mapping[str, str],
    *,
    overwrite: bool,
) -> None:
    if overwrite:
        _with_retries(lambda: files.pipe_file(path, content, **kind))
        return
    try:
        files.pipe_file(path, content, mode="create", **kind)
    except (NotImplementedError, TypeError, ValueError):  # a client without conditional writes
        if files.exists(path):
            raise FileExistsError(path) from None
        files.pipe_file(path, content, **kind)


def _kind_of(url: str) -> dict[str, str]:
    """What a browser is told of the content, where a client takes it."""
    kind = mimetypes.guess_type(url)[0] or "application/octet-stream"
    setting = {"s3": "ContentType", "gs": "content_type"}.get(_scheme(url))
    return {setting: kind} if setting else {}


def require_writable(url: str) -> None:
    """Refuse addresses to which nothing is written.

    Raises:
        UsageError: With what can be done instead.
    """
    reason = READ_ONLY.get(_scheme(url))
    if reason:
        raise UsageError(f"-o {shown(url)!r}: {reason}")


def open_files(url: str) -> tuple[Any, str]:
    """The fsspec file system of an address, and the path in it.

    Raises:
        UsageError: An unknown scheme, or one whose client is not installed.
    """
    scheme = _scheme(url)
    try:
        files = _file_system(scheme)
    except ImportError as error:
        raise UsageError(
            f"{shown(url)!r} needs the extra {EXTRAS[scheme]}: "
            f"pip install 'derain-cli[{EXTRAS[scheme]}]'"
        ) from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{shown(url)!r} cannot be opened: {_one_line(error, url)}") from error
    return files, files._strip_protocol(url)


def _scheme(url: str) -> str:
    match = SCHEME.match(url)
    scheme = match[1].lower() if match else ""
    if scheme not in EXTRAS:
        raise UsageError(
            f"{shown(url)!r}: unknown kind of address {scheme!r}. {did_you_mean(scheme, EXTRAS)}"
        )
    return scheme


@functools.cache
def _file_system(scheme: str) -> Any:  # noqa: ANN401 (fsspec has no types)
    import fsspec  # noqa: PLC0415 (only commands that are given an address need it)

    # What a listing said a while ago must not decide what is there now.
    settings: dict[str, Any] = {"use_listings_cache": False}
    if scheme == "s3":
        settings["config_kwargs"] = {"max_pool_connections": CONNECTIONS}
    return fsspec.filesystem(scheme, **settings)


def list_files(url: str, *, recursive: bool) -> Iterator[tuple[Address, PurePosixPath]]:
    """The files below an address and their relative paths, page by page as they are taken.

    Args:
        url: A file, or a folder (a key's beginning up to a slash).
        recursive: Whether the folders below are listed too.

    Raises:
        DerainError: Nothing is there, or it may not be listed or reached.
    """
    files, path = open_files(url)
    path = path.rstrip("/")
    pages = _s3_pages if _scheme(url) == "s3" else _pages
    with translated(url, "listed"):
        for info in pages(files, path, recursive=recursive):
            # A key may hold empty parts, which belong to its address and not to a path on a disk.
            key = info["name"][len(path) :].removeprefix("/")
            found = Address(f"{url.rstrip('/')}/{key}", info.get("size"), _version(info))
            yield found, PurePosixPath(_plain_key(url, key).lstrip("/"))


def _plain_key(url: str, key: str) -> str:
    """A key as names on a disk have it: web servers list `b%20c.jpg`.

    Example:
        >>> _plain_key("https://host/", "b%20c.jpg"), _plain_key("https://host/", "%2e%2e/c.jpg")
        ('b c.jpg', '%2e%2e/c.jpg')
    """
    if _scheme(url) not in ("http", "https"):
        return key
    parts = [(part, unquote(part)) for part in key.split("/")]
    return "/".join(old if "/" in new or new in (".", "..") else new for old, new in parts)


def find_file(url: str) -> Address | None:
    """The address with its size and version where it is a file, None where it is not.

    Raises:
        DerainError: It may not be looked at or cannot be reached.
    """
    if url.endswith("/"):
        return None
    files, path = open_files(url)
    with translated(url, "read"):
        try:
            info = _with_retries(lambda: files.info(path))
        except FileNotFoundError:
            return None
    if info.get("type") != "file":
        return None
    return Address(url, info.get("size"), _version(info))


def _pages(files: Any, path: str, *, recursive: bool) -> Iterator[dict[str, Any]]:  # noqa: ANN401
    """A folder at a time, each once: where a name has an empty part, one may lie in itself."""
    waiting, seen = [path], {path}
    while waiting:
        entries = sorted(
            _with_retries(functools.partial(files.ls, waiting.pop(0), detail=True)),
            key=lambda entry: str(entry["name"]),
        )
        folders = [entry["name"].rstrip("/") for entry in entries if entry["type"] == "directory"]
        waiting += [name for name in folders if recursive and name not in seen]
        seen.update(folders)
        yield from (entry for entry in entries if entry["type"] == "file")


def _s3_pages(files: Any, path: str, *, recursive: bool) -> Iterator[dict[str, Any]]:  # noqa: ANN401
    """A thousand keys at a time; fsspec's own listing would wait for the last page."""
    bucket, _slash, key = path.partition("/")
    request = {"Bucket": bucket, "Prefix": f"{key}/" if key else "", "MaxKeys": PAGE}
    request |= {} if recursive else {"Delimiter": "/"}
    while True:
        page = files.call_s3("list_objects_v2", **request)
        for item in page.get("Contents", ()):
            if not item["Key"].endswith("/"):  # what consoles make for an empty folder
                yield {
                    "name": f"{bucket}/{item['Key']}",
                    "size": item["Size"],
                    "ETag": item["ETag"],
                    "type": "file",
                }
        if not page.get("IsTruncated"):
            return
        request["ContinuationToken"] = page["NextContinuationToken"]


def _version(info: dict[str, Any]) -> str:
    """What a service tells of a file that changes with its content."""
    keys = ("ETag", "etag", "oid", "LastModified", "last_modified", "mtime", "created")
    value = next((info[key] for key in keys if info.get(key)), "")
    return str(value).strip('"')


@contextlib.contextmanager
def translated(url: str, what: str) -> Iterator[None]:
    """What the clients raise, as one line that shows no credential.

    `FileExistsError` passes: whether it is an error depends on the caller.
    """
    try:
        yield
    except (DerainError, FileExistsError):
        raise
    except Exception as error:
        known = _known_error(error)
        if known is None:
            raise
        kind, reason = known
        if kind is ResourceError and what == "written":
            kind = DiskError  # a right that is missing for one file is missing for the next
        line = f"{shown(url)!r} cannot be {what}: {reason or _one_line(error, url)}"
        raise kind(line) from error


def _known_error(error: Exception) -> tuple[type[DerainError], str] | None:
    """The class of our error and a reason; None for a bug. Clients are known by their names."""
    name = type(error).__name__
    if isinstance(error, FileNotFoundError):
        return ImageError, "nothing is there; check the address"
    if isinstance(error, PermissionError):
        return ResourceError, "access is denied; check the credentials and the rights they give"
    if "Credential" in name or "AuthenticationError" in name:
        return UnavailableError, "there are no credentials; configure the service's own client"
    if "Connect" in name or "Timeout" in name:
        return UnavailableError, "the server cannot be reached; check the network and the endpoint"
    module = type(error).__module__.partition(".")[0]
    if isinstance(error, OSError) or module in FOREIGN:
        return ImageError, ""
    return None


def _one_line(error: Exception, url: str) -> str:
    text = " ".join(str(error).split()).replace(url, shown(url))
    text = re.sub(r"\?[^\s'\"]+", "", text)
    return text[:160] or type(error).__name__


def _with_retries(request: Callable[[], Result], tries: int = 3) -> Result:
    """The result of a request that may meet a hiccup of the network.

    S3's client has retries of its own; those of plain HTTP have none.
    """
    for left in reversed(range(tries)):
        try:
            return request()
        except Exception as error:
            if not left or not _is_passing(error):
                raise
    raise AssertionError("the last try returns or raises")


def _is_passing(error: Exception) -> bool:
    status = getattr(error, "status", None)
    return (isinstance(status, int) and status >= 500) or type(error).__name__ in (
        "ServerDisconnectedError",
        "ClientOSError",
        "ClientPayloadError",
    )
