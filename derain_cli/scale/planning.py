"""The plan of a batch in which inputs or results lie beyond this machine."""

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from derain_cli.batch.events import Job, Location, PassedOver, Plan
from derain_cli.batch.inputs import (
    Input,
    collect_inputs,
    is_own_result,
    resolved_parent,
)
from derain_cli.batch.options import DEFAULT_SUFFIX, LAYERS, STDIN, BatchOptions
from derain_cli.batch.places import (
    refuse_input_folder,
    refuse_name_of_file,
    refuse_other_format,
    require_one_for_stdout,
    result_name,
    written_format,
)
from derain_cli.errors import DerainError, NothingToDoError, UsageError
from derain_cli.images import READABLE_SUFFIXES
from derain_cli.scale.addresses import (
    Address,
    find_file,
    is_address,
    list_files,
    open_files,
    require_writable,
    shown,
)
from derain_cli.scale.fetching import listed_ahead
from derain_cli.video.kinds import looks_like_film


@dataclass(frozen=True)
class _Source:
    """An image that was named or listed."""

    place: Location
    relative: str
    problem: str = ""
    is_named: bool = False


def names_addresses(words: Sequence[str], output: str | None) -> bool:
    """Whether a batch reaches beyond this machine's files."""
    return any(map(is_address, words)) or is_address(output)


def plan_addresses(
    words: Sequence[str],
    options: BatchOptions,
    holds: Callable[[str], bool] | None = None,
    listed: Sequence[str] = (),
) -> Plan:
    """A plan whose jobs become known while they are taken, as servers list them.

    What a local plan refuses as a whole (a result that exists, two results of one name) is here a
    failure of the image alone: nobody waits for the end of a listing of a million files.

    Args:
        words: Addresses of files or folders, and local files and folders.
        options: How the batch is read and written; `output` is an address or a folder.
        holds: As for `plan_batch`.
        listed: Likewise: more of them from a list, whose relative paths keep their folders.

    Raises:
        UsageError: Options that do not fit, or an address of an unknown kind.
        NothingToDoError: Nothing is found.
        DerainError: A server cannot be reached or refuses.
    """
    words, listed = list(dict.fromkeys(words)), list(dict.fromkeys(listed))
    everything = [*words, *listed]
    _check(everything, options)
    passed_over: list[PassedOver] = []
    sources = chain(
        _sources(words, options, passed_over), _sources(listed, options, passed_over, mirror=True)
    )
    try:
        first = list(islice(sources, 2))  # whatever can be said at once is said at once
    except DerainError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        first = []
    if not first:
        what = ", ".join(shown(word) for word in everything[:3])
        deeper = "" if options.recursive else "; -r looks into the folders below"
        raise NothingToDoError(f"no image at {what}{deeper}")
    is_single = len(everything) == len(first) == 1 and first[0].is_named
    if options.output == STDIN:
        require_one_for_stdout(options, several=not is_single)
    elif options.output is not None and not is_single:
        refuse_name_of_file(options.output)
    targets = _Targets(everything, options, is_single=is_single)
    jobs = _Jobs(chain(first, sources), targets, holds)
    if is_single:
        return Plan(tuple(jobs), tuple(passed_over))
    return Plan(jobs, tuple(passed_over), is_open=True)


def _check(words: Sequence[str], options: BatchOptions) -> None:
    if options.frames == "all":
        raise UsageError(
            "`frames` all: animations are derained from file to file, not from or to an address"
        )
    for word in filter(is_address, words):
        open_files(word)
    output = options.output
    if output is not None and is_address(output):
        require_writable(output)
        open_files(output)
    elif output is None:
        _refuse_empty_suffix(options)
        for word in filter(is_address, words):
            require_writable(word)
    if STDIN in words:
        raise UsageError("'-' (an image on stdin) cannot go to an address: give -o - or a file")
    if output is not None and not is_address(output):
        local = [word for word in words if not is_address(word)]
        refuse_input_folder(Path(output), local, options)


def _refuse_empty_suffix(options: BatchOptions) -> None:
    if not options.suffix:
        raise UsageError(
            "`suffix` is empty: results beside their inputs would replace them; name a folder "
            "with `output`"
        )


def _sources(
    words: Sequence[str],
    options: BatchOptions,
    passed_over: list[PassedOver],
    *,
    mirror: bool = False,
) -> Iterator[_Source]:
    for word in words:
        if is_address(word):
            yield from _listed(word, options)
            continue
        named, listed = ([], [word]) if mirror else ([word], [])
        inputs, left_out = collect_inputs(named, options, listed)
        passed_over += left_out
        for item in inputs:
            if item.path is not None:
                path = Path(item.path)
                problem = item.problem or _of_film(path)
                # A word that is written otherwise, as "./a.jpg", names the same path.
                yield _Source(path, item.relative, problem, item.path == str(Path(word)))


def _of_film(path: Path) -> str:
    """Why a film cannot be done here; "" for photos."""
    is_film = looks_like_film(path)
    return f"{str(path)!r} is a film: films are derained from file to file" if is_film else ""


def _listed(word: str, options: BatchOptions) -> Iterator[_Source]:
    """The image at an address, or the images below it."""
    file = find_file(word)
    if file is not None:
        # A name may hold an escaped slash, and must not become a path.
        yield _Source(file, PurePosixPath(unquote(file.name)).name or file.name, is_named=True)
        return
    own = frozenset({options.suffix, DEFAULT_SUFFIX})
    output = str(options.output).rstrip("/") + "/"
    for address, relative in listed_ahead(list_files(word, recursive=options.recursive)):
        if relative.suffix.lower() not in READABLE_SUFFIXES or relative.name.startswith("."):
            continue
        if not is_own_result(relative, own) and not address.url.startswith(output):
            yield _Source(address, str(relative))


class _Targets:
    """Where results go, and which are there already."""

    def __init__(self, words: Sequence[str], options: BatchOptions, *, is_single: bool) -> None:
        self._options = options
        self._output = options.output
        self._is_file = is_single and not self._means_folder()
        if self._is_file and self._output not in (None, STDIN):
            refuse_other_format(PurePosixPath(str(self._output)), options)
        self._taken: set[int] = set()
        places = (Address(word) if is_address(word) else Path(word) for word in words)
        self._originals = set(map(_key, places))  # those listed join them
        self._listings: dict[str, frozenset[str]] = {}

    def _means_folder(self) -> bool:
        output = self._output
        if output is None or output == STDIN:
            return False
        if is_address(output):
            return written_format(PurePosixPath(output)) is None or output.endswith("/")
        return output.endswith(("/", os.sep)) or Path(output).is_dir()

    def job(self, source: _Source) -> Job:
        """The job of an image: to be done, to be skipped, or with a problem that is known."""
        if problem := source.problem or self._way_out(source):
            return Job(source.place, problem=problem, relative=source.relative)
        wanted = (True, self._options.save_rain, self._options.compare)
        derained, rain, compare = (
            self._target(source, layer) if is_wanted else None
            for layer, is_wanted in zip(LAYERS, wanted, strict=True)
        )
        job = Job(source.place, derained, rain, compare, relative=source.relative)
        self._originals.add(_key(source.place))
        if problem := self._replaced(job):
            return Job(source.place, problem=problem, relative=source.relative)
        there = [self._is_there(target) for target in job.targets]
        if self._options.skip_existing and there and all(there):
            return Job(source.place, derained, rain, compare, skip=True, relative=source.relative)
        problem = self._problem(job, is_there=any(there))
        return Job(source.place, problem=problem, relative=source.relative) if problem else job

    def _target(self, source: _Source, layer: str) -> Location | None:
        item, name = Input(None, source.relative), PurePosixPath(source.relative).name
        output = self._output
        if output == STDIN:
            return None
        if output is None:
            name = result_name(item, name, self._options.suffix + layer, self._options)
            if isinstance(source.place, Path):
                return source.place.with_name(name)
            return _address_of(source.place).beside(name)
        if self._is_file:
            return _layer_of(output, layer)
        below = PurePosixPath(source.relative).parent / result_name(
            item, name, layer, self._options
        )
        return Address(output).below(below) if is_address(output) else Path(output) / below

    def _way_out(self, source: _Source) -> str:
        """Why a result would lie outside of the output folder, or an empty text.

        A key may have any name: who fills a bucket must not choose where on a disk its images go.
        """
        if self._output is None or ".." not in PurePosixPath(source.relative).parts:
            return ""
        return f"{str(source.place)!r}: '..' in its name would lead out of {self._output!r}"

    def _replaced(self, job: Job) -> str:
        """Why an original would be lost, or an empty text."""
        for target in job.targets:
            if _key(target) in self._originals:
                return (
                    f"the result of {job.name!r} would replace the input {str(target)!r}: "
                    "originals are never written to; choose another -o or --suffix"
                )
        return ""

    def _problem(self, job: Job, *, is_there: bool) -> str:
        for target in job.targets:
            key = _key(target)
            if key in self._taken:
                return (
                    f"{job.name!r}: another image of this batch is written to {str(target)!r}; "
                    "derain them in separate runs with different -o folders"
                )
            self._taken.add(key)
        if is_there and not (self._options.overwrite or self._options.skip_existing):
            return (
                f"{str(job.derained)!r} exists already: --skip-existing keeps what is there, "
                "--overwrite replaces it"
            )
        return ""

    def _is_there(self, target: Location) -> bool:
        if self._options.overwrite:
            return False
        if isinstance(target, Path):
            return os.path.lexists(target)
        address = _address_of(target)
        if self._is_file:
            return address.exists()
        root = self._output if self._output is not None else address.url.rpartition("/")[0]
        if root not in self._listings:
            self._listings[root] = _urls_below(root, recursive=self._output is not None)
        return address.url in self._listings[root]


def _key(place: Location) -> int:
    """Stands for a place in a set of millions, by whichever way its folder is reached."""
    return hash(str(resolved_parent(place) / place.name if isinstance(place, Path) else place))


def _address_of(place: Location) -> Address:
    assert isinstance(place, Address), "a place that is not on this machine has an address"
    return place


def _urls_below(root: str, *, recursive: bool) -> frozenset[str]:
    """All that is there, in one listing: far fewer requests than a look at each."""
    try:
        return frozenset(address.url for address, _ in list_files(root, recursive=recursive))
    except DerainError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return frozenset()
        raise


def _layer_of(output: str, layer: str) -> Location:
    path = PurePosixPath(output) if is_address(output) else Path(output)
    name = path.stem + layer + path.suffix
    return Address(output).beside(name) if is_address(output) else Path(output).with_name(name)


class _Jobs(Collection[Job]):
    """The jobs of one run, made while they are taken; as many as were taken so far."""

    def __init__(
        self,
        sources: Iterator[_Source],
        targets: _Targets,
        holds: Callable[[str], bool] | None,
    ) -> None:
        self._sources, self._targets, self._holds = sources, targets, holds
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, job: object) -> bool:
        raise TypeError("an open plan can only be taken job by job")

    def __iter__(self) -> Iterator[Job]:
        for source in self._sources:
            if self._holds is None or self._holds(source.relative):
                self._count += 1
                yield self._targets.job(source)
