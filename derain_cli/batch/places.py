"""Where one result goes: beside its input, below a folder, into one file, or to stdout."""

import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Literal

from derain_cli.batch.events import Remote
from derain_cli.batch.inputs import Input, is_folder, prefix_of, resolved
from derain_cli.batch.options import ENDINGS, STDIN, BatchOptions
from derain_cli.errors import UsageError
from derain_cli.images import FORMAT_OF_SUFFIX, WRITABLE_FORMATS, format_of_bytes
from derain_cli.video.kinds import FILM_SUFFIXES, has_film_name, looks_like_film, written_suffix
from derain_cli.video.kinds import FORMAT_OF_SUFFIX as FORMAT_OF_FILM_SUFFIX

STANDARD_OUTPUTS = ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "/proc/thread-self/fd/1")
FILM_ENDINGS = tuple(FILM_SUFFIXES)
Place = Callable[[Input, str], str | None]


def choose_place(
    words: Sequence[str],
    options: BatchOptions,
    listed: Sequence[str] | None,
    inputs: Sequence[Input],
) -> Place:
    """Path of a layer of an input's result: beside the input, in a folder, one file, or stdout."""
    from_stdin = inputs[0].path is None
    several = len(words) != 1 or listed is not None
    if not several and not from_stdin:  # one word may be a folder or a pattern
        several = inputs[0].path != str(Path(words[0]))
    output = _without_device(options.output)
    if output == STDIN or (from_stdin and output is None):
        require_one_for_stdout(options, several=several)
        return lambda _item, _layer: None
    if options.output is None:
        return lambda item, layer: _beside(item, layer, options)
    folder = Path(options.output)
    if not _means_folder(options.output, several=several):
        _check_file(folder, inputs[0], options)
        return lambda _item, layer: str(folder.with_name(folder.stem + layer + folder.suffix))
    if from_stdin:
        raise UsageError("an image from stdin has no name: `output` must be a file or '-'")
    _check_folder(folder, words, options)
    prefix_below = lru_cache(maxsize=4096)(lambda below: prefix_of(folder / below))
    return lambda item, layer: _mirrored(item, layer, prefix_below, options)


def require_one_for_stdout(options: BatchOptions, *, several: bool) -> None:
    """Refuse more than one image for stdout.

    Raises:
        UsageError: There are several inputs, or images beside the result.
    """
    if several:
        raise UsageError("`output` - takes one image, and these are several: name a folder")
    if options.save_rain or options.compare:
        raise UsageError("stdout holds one image: `save_rain` and `compare` need `output` PATH")


def _without_device(output: str | None) -> str | None:
    """The output, `-` where it names standard output by its place.

    Raises:
        UsageError: Something else below /dev or /proc, where no result can lie.
    """
    if output is None or output == STDIN:
        return output
    path = Path(os.path.abspath(output))  # noqa: PTH100 (links to open files must not be followed)
    if str(path) in STANDARD_OUTPUTS:
        return STDIN
    devices = any(path.is_relative_to(place) for place in ("/dev", "/proc"))
    if devices and not path.is_relative_to("/dev/shm"):
        raise UsageError(
            f"`output` {output!r} is a device: name a file or a folder, or - for stdout"
        )
    return output


def _means_folder(output: str, *, several: bool) -> bool:
    return several or is_folder(Path(output)) or output.endswith(("/", os.sep))


def _check_folder(folder: Path, words: Sequence[str], options: BatchOptions) -> None:
    output = str(options.output)
    if os.path.lexists(folder) and not is_folder(folder):
        raise UsageError(
            f"`output` {output!r} is a file; several inputs or a '/' at its end ask for a folder"
        )
    refuse_name_of_file(output)
    refuse_input_folder(folder, words, options)


def refuse_name_of_file(output: str) -> None:
    """Refuse a new folder for several results that is named like one of them.

    Args:
        output: A path or an address; a '/' at its end says that a folder is meant.

    Raises:
        UsageError: It is named so.
    """
    folder = Path(output)
    is_named_like_file = written_format(folder) is not None or has_film_name(folder)
    looks_like_file = is_named_like_file and not output.endswith(("/", os.sep))
    if looks_like_file and not is_folder(folder):
        raise UsageError(
            f"`output` {output!r} would be a folder, for several inputs; write '{output}/' if it "
            "should"
        )


def refuse_input_folder(folder: Path, words: Sequence[str], options: BatchOptions) -> None:
    """Refuse a folder of results that is one of the inputs.

    Raises:
        UsageError: It is.
    """
    for word in words:
        if is_folder(Path(word)) and resolved(Path(word)) == resolved(folder):
            raise UsageError(
                f"`output` {str(options.output)!r} is the input folder itself: leave `output` away "
                f"(results get the suffix {options.suffix!r}) or name another folder"
            )


def kind_of(item: Input, options: BatchOptions) -> Literal["image", "animation", "film"]:
    """Which way an input takes, by its name; with `frames="all"` also by what is in it."""
    may_be_film = item.relative.lower().endswith(FILM_ENDINGS)  # of a million names: as text
    if item.path is not None and may_be_film and looks_like_film(Path(item.path)):
        return "film"
    if item.path is None or options.frames == "first":
        return "image"
    from derain_cli.video.animations import is_animation  # noqa: PLC0415 (loads OpenCV)

    animated = options.format in (None, "png", "webp") and is_animation(Path(item.path))
    return "animation" if animated else "image"


def _check_file(file: Path, item: Input, options: BatchOptions) -> None:
    """The ending of an output file must name a format, the one of `--format` if that is given."""
    kind = kind_of(item, options)
    if kind == "film" and file.suffix.lower() not in FORMAT_OF_FILM_SUFFIX:
        raise UsageError(
            f"`output` {str(file)!r} is the result of a film, which must end in one of "
            f"{', '.join(FORMAT_OF_FILM_SUFFIX)}"
        )
    if kind == "film" or (item.path is None and file.suffix.lower() in FORMAT_OF_FILM_SUFFIX):
        return
    if kind == "animation" and file.suffix.lower() == ".gif":
        return
    if not file.suffix and options.format:
        return
    named = written_format(file)
    if named is None:
        endings = ", ".join(ENDINGS.values())
        raise UsageError(
            f"`output` {str(file)!r} has no ending that names a format ({endings}); a folder is "
            "written with a '/' at the end"
        )
    refuse_other_format(file, options)


def refuse_other_format(file: PurePath, options: BatchOptions) -> None:
    """Refuse an output file whose ending names another format than `--format`.

    Raises:
        UsageError: It does.
    """
    format = options.format
    if not format or not file.suffix:
        return
    if written_format(file) != _format_of_suffix(ENDINGS[format]):
        raise UsageError(
            f"`output` {str(options.output)!r} is no {format} file: leave `format` away"
        )


def written_format(path: PurePath | Remote) -> str | None:
    """The format that a name asks for, None if it asks for none that can be written."""
    return _format_of_suffix(path.suffix)


def _format_of_suffix(suffix: str) -> str | None:
    format = FORMAT_OF_SUFFIX.get(suffix.lower())
    return format if format in WRITABLE_FORMATS else None


def _beside(item: Input, layer: str, options: BatchOptions) -> str:
    path = Path(item.path or item.relative)
    return str(path.with_name(path.stem + options.suffix + layer + _ending(item, options)))


def _mirrored(
    item: Input, layer: str, prefix_below: Callable[[str], str], options: BatchOptions
) -> str:
    below, _separator, name = item.relative.rpartition(os.sep)
    return prefix_below(below) + result_name(item, name, layer, options)


def result_name(item: Input, name: str, layer: str, options: BatchOptions) -> str:
    """The name of a layer of the result for an image of that name."""
    stem = os.path.splitext(name)[0]  # noqa: PTH122 (a million names)
    return stem + layer + _ending(item, options)


def _ending(item: Input, options: BatchOptions) -> str:
    """The input's own ending where it names the format to write, else one of its content's format.

    `.png` where neither can be written.
    """
    suffix = os.path.splitext(item.relative)[1]  # noqa: PTH122 (a million names)
    kind = kind_of(item, options)
    if kind == "film":
        return written_suffix(suffix)
    if kind == "animation" and suffix.lower() == ".gif" and options.format is None:
        return suffix
    if ending := _ending_of_photo(suffix, options.format):
        return ending
    content = item.path and _format_of_content(Path(item.path))
    return next((end for end in ENDINGS.values() if FORMAT_OF_SUFFIX[end] == content), ".png")


@lru_cache(maxsize=1024)
def _ending_of_photo(suffix: str, format: str | None) -> str:
    """The ending of the result of a photo; "" where its own says nothing."""
    own = _format_of_suffix(suffix)
    if format is not None:
        wanted = ENDINGS[format]
        return suffix if own == _format_of_suffix(wanted) else wanted
    if own:
        return suffix
    return ".png" if suffix.lower() in FORMAT_OF_SUFFIX else ""


def _format_of_content(path: Path) -> str | None:
    """What the first bytes say, for a name that says nothing; None where they cannot be read."""
    try:
        with path.open("rb") as file:
            return format_of_bytes(file.read(4096))
    except OSError:
        return None
