"""What is read: the images that files, folders, patterns and lists name, each once."""

import codecs
import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePath
from typing import NamedTuple

from derain_cli.batch.events import PassedOver
from derain_cli.batch.options import DEFAULT_SUFFIX, LAYERS, STDIN, BatchOptions
from derain_cli.errors import UsageError
from derain_cli.images import READABLE_SUFFIXES, format_of_bytes, unread_ending
from derain_cli.video.kinds import looks_like_film


def mode_of(path: Path) -> int:
    """What kind of file a path leads to (`st_mode`), 0 where it leads nowhere."""
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def is_folder(path: Path) -> bool:
    """Whether a path leads to a folder, be it through links."""
    return stat.S_ISDIR(mode_of(path))


@lru_cache(maxsize=4096)
def resolved(folder: Path) -> Path:
    """The folder's one true path, remembered until `collect_inputs` begins the next plan."""
    return folder.resolve()


def resolved_parent(path: Path) -> Path:
    """The one true path of the folder that a path itself, not what it links to, lies in."""
    return resolved(path.parent)


def prefix_of(folder: Path) -> str:
    """What goes before the names in a folder, as text: several times faster than paths.

    Example:
        >>> prefix_of(Path("photos")) == "photos" + os.sep, prefix_of(Path())
        (True, '')
    """
    return str(folder / "x")[:-1]


MAGIC = re.compile(r"[*?\[]")


class Input(NamedTuple):
    """An image that was named or found; `relative` is mirrored below an output folder.

    Both paths are text: of a million images each path that need not be made counts.
    """

    path: str | None
    relative: str
    problem: str = ""


Found = Input | PassedOver


def collect_inputs(
    words: Sequence[str], options: BatchOptions, listed: Sequence[str] = ()
) -> tuple[tuple[Input, ...], tuple[PassedOver, ...]]:
    """The images that words and lists name, each once, and what was passed over.

    Args:
        words: Files, folders, globs (when no file has that very name), or `-`.
        options: `recursive`, `output` and `suffix` matter.
        listed: Paths from a list; a relative one keeps its folders below an output folder.

    Raises:
        UsageError: An empty word, an impossible glob, or `-` beside other inputs.
    """
    if STDIN in words and len(words) + len(listed) > 1:
        raise UsageError("'-' (an image on stdin) must be the only input")
    for remembered in (resolved, _resolved_text):  # links and the working folder may have changed
        remembered.cache_clear()
    found = [item for word in words for item in _from_word(word, options)]
    found += [item for word in listed for item in _from_word(word, options, mirror=True)]
    inputs = [item for item in found if isinstance(item, Input)]
    if len(words) + len(listed) > 1:  # what one word names is named once
        once: dict[object, Input] = {}
        for item in inputs:
            once.setdefault(item.path and _own_place(item.path), item)
        inputs = list(once.values())
    return tuple(inputs), tuple(item for item in found if isinstance(item, PassedOver))


def _own_place(path: str) -> tuple[str, str]:
    """The one true folder and the name of a path itself, not of what it links to."""
    folder, name = os.path.split(path)  # as text: several times faster than as paths
    return _resolved_text(folder), name


@lru_cache(maxsize=4096)
def _resolved_text(folder: str) -> str:
    return str(resolved(Path(folder)))


def natural_order(name: str) -> tuple[list[str | int], str]:
    """Sort key that puts 2 before 10.

    Example:
        >>> sorted(["a10", "a2", "A1"], key=natural_order)
        ['A1', 'a2', 'a10']
    """
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


DIGITS = {ord(digit): "0" for digit in "123456789"}


def _in_natural_order(names: Iterable[str]) -> list[str]:
    """Names of one folder, sorted by `natural_order`."""
    names = list(names)
    if len({name.translate(DIGITS) for name in names}) == 1 and names[0].isascii():
        return sorted(names)  # a camera's names differ in digits alone: many times faster
    return sorted(names, key=natural_order)


def read_list(content: bytes) -> tuple[str, ...]:
    r"""Paths of a list: one per line, or ended by NUL as `find -print0` writes them.

    A list that begins with a byte order mark is decoded as that says: PowerShell writes UTF-16.

    Raises:
        UsageError: It is an image, or no text in the encoding that its mark names.

    Example:
        >>> read_list(b"a b.jpg\n\n-c.png\n")
        ('a b.jpg', '-c.png')
    """
    head = content[:4096]
    # Names may begin like an image ("BMW.jpg"), but no list has an empty name between two NULs.
    if format_of_bytes(head) and b"\0\0" in head:
        raise UsageError("`from_file` got an image; it takes a list of paths, one per line")
    content = _without_mark(content)
    lines = content.split(b"\0") if b"\0" in content else content.splitlines()
    return tuple(os.fsdecode(line) for line in lines if line)


def _without_mark(content: bytes) -> bytes:
    """A list in the encoding of file names, without the mark that says in which it was written."""
    if content.startswith(codecs.BOM_UTF8):
        return content[len(codecs.BOM_UTF8) :]
    if not content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content
    try:
        return os.fsencode(content.decode("utf-16"))
    except UnicodeError as error:
        raise UsageError(
            "`from_file` begins as UTF-16 and is not: save the list as UTF-8"
        ) from error


def _from_word(word: str, options: BatchOptions, *, mirror: bool = False) -> Iterator[Found]:
    if not word:
        raise UsageError("one of the inputs is an empty name (an unset variable?)")
    path = Path(word)
    if word == STDIN and not mirror:
        yield Input(None, "stdin")
    elif is_folder(path):
        yield from _from_folder(path, options)
    elif mirror or os.path.lexists(path) or not MAGIC.search(word):
        yield _from_file(path, options, mirror=mirror)
    else:
        yield from _from_glob(path, options)


def _from_file(path: Path, options: BatchOptions, *, mirror: bool) -> Found:
    if is_own_result(path, {options.suffix}):
        return PassedOver(
            str(path), f"its name ends in {options.suffix!r}: a result of this program"
        )
    keeps_folders = mirror and not path.is_absolute() and ".." not in path.parts
    return Input(str(path), str(path) if keeps_folders else path.name, _problem(path))


def _problem(path: Path) -> str:
    """Why a named path cannot hold an image, or an empty string."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno == errno.ENOENT:
            return f"no such file or folder: {str(path)!r}"
        return f"cannot open {str(path)!r}: {error.strerror}"
    if stat.S_ISFIFO(mode):
        return f"{str(path)!r} is a pipe: give '-' as the input and send the image to stdin"
    return "" if stat.S_ISREG(mode) else f"{str(path)!r} is a device or socket, not an image"


def _from_folder(folder: Path, options: BatchOptions) -> Iterator[Found]:
    found = list(_walk(folder, "", options))
    if not any(isinstance(item, Input) for item in found):
        deeper = "" if options.recursive else "; -r looks into the folders below"
        found.append(PassedOver(str(folder), f"no image in this folder{deeper}"))
    yield from found


def _walk(folder: Path, relative: str, options: BatchOptions) -> Iterator[Found]:
    """Files first, then the folders below; links to folders are not followed, so none can loop.

    `relative` is what goes before each name, with its separator.
    """
    try:
        with os.scandir(folder) as scan:
            entries = {entry.name: entry for entry in scan if not entry.name.startswith(".")}
    except OSError as error:
        yield Input(str(folder), relative, f"cannot open {str(folder)!r}: {error.strerror}")
        return
    folders, inside = [], prefix_of(folder)
    own_endings = _own_endings(frozenset((options.suffix, DEFAULT_SUFFIX)))
    for name in _in_natural_order(entries):
        entry = entries[name]
        # What the listing and the name say spares a look at each of a million files.
        if entry.is_file(follow_symlinks=False):
            stem, dot, ending = name.rpartition(".")
            if (dot + ending).lower() in READABLE_SUFFIXES and not stem.endswith(own_endings):
                yield Input(inside + name, relative + name)
            else:
                yield from _sift(folder / name, relative + name, options, is_plain=True)
        elif entry.is_dir(follow_symlinks=False) or is_folder(folder / name):
            folders.append(entry)
        else:
            yield from _sift(folder / name, relative + name, options)
    for entry in folders if options.recursive else ():
        path = folder / entry.name
        if _is_output_folder(path, options):
            continue
        if entry.is_symlink():
            yield PassedOver(str(path), "a link to a folder is not followed")
        else:
            yield from _walk(path, relative + entry.name + os.sep, options)


def _sift(
    path: Path, relative: str, options: BatchOptions, *, is_plain: bool = False
) -> Iterator[Found]:
    """A file that was found and not named: only images by their ending, and no own results.

    `is_plain` says that it is known to be a regular file.
    """
    if path.suffix.lower() not in READABLE_SUFFIXES:
        unread = unread_ending(path.suffix)
        if unread:
            yield PassedOver(str(path), unread)
        if not looks_like_film(path):
            return
    mode = stat.S_IFREG if is_plain else mode_of(path)
    if not mode and path.is_symlink():
        yield PassedOver(str(path), "a link that leads nowhere")
    if not stat.S_ISREG(mode):
        return
    if is_own_result(path, {options.suffix, DEFAULT_SUFFIX}):
        yield PassedOver(str(path), "a result of this program")
    else:
        yield Input(str(path), relative)


def _from_glob(pattern: Path, options: BatchOptions) -> Iterator[Found]:
    """Files that match; `**` does not follow links, and dot-files need a dot in the pattern."""
    magic = next(i for i, part in enumerate(pattern.parts) if MAGIC.search(part))
    base, rest = Path(*pattern.parts[:magic]), list(pattern.parts[magic:])
    rest += ["*"] if rest[-1] == "**" else []
    try:
        paths = sorted(base.glob("/".join(rest)), key=lambda path: natural_order(str(path)))
    except ValueError as error:
        raise UsageError(f"{str(pattern)!r} is no pattern: {error}") from error
    dotted = any(part.startswith(".") for part in rest)
    found: list[Found] = []
    for path in paths:
        relative = path.relative_to(base)
        hidden = not dotted and any(part.startswith(".") for part in relative.parts)
        below = (base / parent for parent in relative.parents if parent != Path())
        if not hidden and not any(_is_output_folder(folder, options) for folder in below):
            found += _sift(path, str(relative), options)
    yield from found or [PassedOver(str(pattern), "no file of this name, and no image matches it")]


def is_own_result(path: PurePath, suffixes: Iterable[str]) -> bool:
    """Whether a name ends as those of results do."""
    return path.stem.endswith(_own_endings(frozenset(suffixes)))


@lru_cache(maxsize=16)
def _own_endings(suffixes: frozenset[str]) -> tuple[str, ...]:
    return tuple(suffix + layer for suffix in suffixes if suffix for layer in LAYERS)


def _is_output_folder(folder: Path, options: BatchOptions) -> bool:
    if options.output in (None, STDIN):
        return False
    return resolved(folder) == resolved(Path(str(options.output)))
