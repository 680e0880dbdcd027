"""Options for runs on several machines: shards, manifest and engine."""

import dataclasses
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from derain_cli.errors import UsageError

if TYPE_CHECKING:
    from derain_cli.batch import BatchOptions, Event, Interrupter, Plan
    from derain_cli.batch.network import OnProgress
    from derain_cli.datasets.layouts import Pair
    from derain_cli.inference.derainer import Derainer
    from derain_cli.scale.trust import Trust

PANEL = "Many machines"

ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        rich_help_panel=PANEL,
        help="Do part I of N, counted from 0; auto takes both from a Slurm array, auto/N takes I "
        "from Slurm or an indexed Kubernetes job.",
    ),
]
ManifestOption = Annotated[
    Path | None,
    typer.Option(
        "--manifest",
        metavar="FILE",
        rich_help_panel=PANEL,
        help="Append a JSON line per image; with --skip-existing, redo results whose input, "
        "weights or options have changed since.",
    ),
]
OnOption = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="ENGINE",
        rich_help_panel=PANEL,
        help="ray starts a local Ray; ray://HOST:PORT or ray://auto uses a running cluster.",
    ),
]


def shard_filter(text: str | None) -> Callable[[str], bool] | None:
    """Function that tells whether a relative path belongs to this shard; None: all do."""
    if text is None:
        return None
    from derain_cli.scale.shards import parse_shard

    return parse_shard(text).holds


def check_engine(on: str | None) -> None:
    """Refuse an unknown engine, or one that is not installed, before any work."""
    if on is not None:
        from derain_cli.scale.on_ray import address_of, import_ray

        address_of(on)
        import_ray()


def trust_in(
    manifest: Path | None, model: str | None, options: "BatchOptions", engine: Mapping[str, Any]
) -> "Trust | None":
    """Records of an earlier run in the manifest, and the options to compare them with."""
    if manifest is None:
        return None
    from derain_cli.checkpoints.catalogue import DEFAULT_WEIGHTS
    from derain_cli.checkpoints.resolving import resolve_weights
    from derain_cli.scale.manifest import read_manifest
    from derain_cli.scale.trust import Trust, options_of
    from derain_cli.whole_files import sha256_of

    if manifest.is_dir():
        raise UsageError(f"--manifest {str(manifest)!r} is a folder: name a file in it")
    weights = sha256_of(resolve_weights(model or DEFAULT_WEIGHTS))
    known = read_manifest(manifest)  # also where it is only written to: another file is refused
    return Trust(known if options.skip_existing else {}, weights, options_of(options, engine))


@contextmanager
def recording(manifest: Path | None, trust: "Trust | None") -> Iterator[Callable[["Event"], None]]:
    """Function that appends the outcome of each image to the manifest."""
    from derain_cli.batch import Result

    if manifest is None or trust is None:
        yield lambda _event: None
        return
    from derain_cli.scale.manifest import ManifestWriter

    with ManifestWriter(manifest) as writer:

        def record(event: "Event") -> None:
            if isinstance(event, Result) and event.status in ("done", "failed"):
                writer.write(trust.record(event))

        yield record


def make_plan(
    words: list[str],
    options: "BatchOptions",
    listed: tuple[str, ...] | None,
    shard: str | None,
    trust: "Trust | None",
) -> "Plan":
    """The plan of local files or of addresses, for this shard, compared with the manifest."""
    from derain_cli.batch import plan_batch
    from derain_cli.scale.planning import names_addresses, plan_addresses

    holds = shard_filter(shard)
    if names_addresses([*words, *(listed or ())], options.output):
        plan = plan_addresses(words, options, holds, listed or ())
    else:
        plan = plan_batch(words, options, listed, holds)
    return plan if trust is None else trust.check(plan)


def events_of(
    plan: "Plan",
    model: str | None,
    derainer: "Derainer | None",
    options: "BatchOptions",
    engine: Mapping[str, Any],
    on: str | None,
    stdin: bytes,
    interrupter: "Interrupter",
    on_progress: "OnProgress",
) -> "Generator[Event]":
    """Events while a plan runs, in this process or on Ray."""
    from derain_cli.batch import run_batch

    if on is not None:
        from derain_cli.checkpoints.catalogue import DEFAULT_WEIGHTS
        from derain_cli.checkpoints.resolving import load_model
        from derain_cli.scale.on_ray import run_on_ray

        checkpoint = load_model(model or DEFAULT_WEIGHTS).path  # refused here, not in each actor
        return run_on_ray(plan, checkpoint, options, engine, on, interrupter)
    if plan.is_open:  # there is nothing beside a single file to fetch meanwhile
        from derain_cli.scale.fetching import REQUESTS, fetch_ahead

        # Many requests are under way at once; each thread mostly waits for its server.
        options = dataclasses.replace(options, workers=options.workers or REQUESTS)
        plan = fetch_ahead(plan)
    return run_batch(plan, derainer, options, stdin, interrupter, on_progress)


def shard_of_pairs(
    pairs: "Mapping[str, Sequence[Pair]]", shard: str | None
) -> "dict[str, list[Pair]]":
    """Pairs of each data set that belong to this shard."""
    holds = shard_filter(shard)
    return {
        name: [pair for pair in members if holds is None or holds(pair.name)]
        for name, members in pairs.items()
    }
