"""`derain search`: search RDMC's connections for your own data or budget."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from derain_cli.cli.output_files import default_data_root
from derain_cli.cli.runs import (
    build_config,
    config_of_run,
    given_of,
    options_from,
    say_how_to_go_on,
    say_speed,
    stop_on_signal,
    talks,
)
from derain_cli.errors import INTERRUPTED, UsageError
from derain_cli.training.configs.search import SearchConfig

if TYPE_CHECKING:
    from derain_cli.connections.file import FoundConnections
    from derain_cli.training.searcher import Report, SearchResult
    from derain_cli.training.trainer import Progress


@options_from(SearchConfig())
def search(
    *,
    out: Annotated[
        Path, typer.Option(metavar="folder", help="Folder of the search.", show_default=False)
    ],
    resume: Annotated[bool, typer.Option("--resume", help="Resume the search in --out.")] = False,
    config: Annotated[
        Path | None,
        typer.Option(metavar="file", help="Take the options of a search's config.json."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="name", help="paper (as published) or quick (minutes on two CPU cores)."
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", "-n", help="Show every setting and its source, then stop."),
    ] = False,
    candidates: Annotated[
        tuple[str, int] | None,
        typer.Option(
            metavar="random N",
            help="Then train the chosen edges, the paper's four and N random choices of the same "
            "budget for --steps, and compare their PSNR on the held-out images.",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    **options: Any,  # noqa: ANN401 (one per config field)
) -> None:
    """Search the skip connections of RDMC on your data, within your budget.

    Writes connections.toml for `derain train --arch rdmc --connections FILE`, an
    image of the network, and the alphas over time.

    Options given beside --config or --resume override theirs.
    """
    from derain_cli.cli.train_view import starting

    count = _random_count(candidates)
    with starting(quiet=quiet):
        chosen = config_of(out, config, resume, options, preset)
    if dry_run:
        from derain_cli.cli.train import explain_run
        from derain_cli.training import searcher, trainer

        explain_run(chosen, preset, given_of(options), str(config or "environment"))
        searcher.search_space(chosen)
        trainer.check(chosen, out, resume=resume)
        return
    talking = talks()
    with stop_on_signal() as stopping, _progress(chosen, quiet or not talking) as report:
        # After the view has begun: loading torch takes seconds.
        from derain_cli.inference.memory import keep_freed_memory
        from derain_cli.training import searcher

        keep_freed_memory()
        result = searcher.search(
            chosen,
            out,
            candidates=count,
            resume=resume,
            report=report,
            should_stop=lambda: bool(stopping),
        )
    if talking:
        _say_what_was_found(result, count, quiet=quiet, interrupted=bool(stopping))
    if stopping and not result.finished:
        raise typer.Exit(INTERRUPTED)


def _random_count(candidates: tuple[str, int] | None) -> int:
    if candidates is None:
        return 0
    kind, count = candidates
    if kind != "random" or count < 1:
        raise UsageError(f"`candidates` is '{kind} {count}'; it must be 'random N', N above 0")
    return count


def config_of(
    out: Path,
    config: Path | None,
    resume: bool,
    options: Mapping[str, Any],
    preset: str | None = None,
) -> SearchConfig:
    """The search's config: a file (`--config`, or its own with `--resume`), or a preset; flags.

    Raises:
        ConfigError: An unknown field in the file, or an impossible value.
    """
    if resume and config is None:
        base = config_of_run(SearchConfig, out)
    else:
        base = SearchConfig.read(config) if config else SearchConfig()
    given = given_of(options)
    fields: dict[str, Any] = {"data_root": base.data_root or default_data_root()}
    if preset:
        from derain_cli.training.configs.presets import preset_values

        if config or resume:
            raise UsageError("a preset begins a new search; leave it out with a config or `resume`")
        fields |= preset_values(base.model, preset, given)
    return build_config(base, fields, given)


@contextmanager
def _progress(config: SearchConfig, quiet: bool) -> Iterator["Report"]:
    """A function to call after every step: one table for the search, one for each candidate."""
    from derain_cli.cli.train_view import show_progress

    shown = ""
    with ExitStack() as table:
        report = table.enter_context(show_progress(config, quiet=quiet))

        def note(name: str, progress: "Progress") -> None:
            nonlocal shown, report
            if name != shown:
                if shown:
                    table.close()
                    report = table.enter_context(show_progress(config, quiet=quiet))
                shown = name
                if not quiet:
                    typer.echo(f"{name}:", err=True)
            report(progress)

        yield note


def _say_what_was_found(
    result: "SearchResult", count: int, *, quiet: bool, interrupted: bool
) -> None:
    if not quiet:
        say_speed(result.run)
        for line in (*_found_lines(result.found), *_candidate_lines(result)):
            typer.echo(line, err=True)
    if result.finished:
        typer.echo(str(result.folder / "connections.toml"))
    else:
        why = "interrupted" if interrupted else "time is up"
        more = ("--candidates", "random", str(count)) if count else ()
        say_how_to_go_on(result.run, "search", why, more=more)


def _found_lines(found: "FoundConnections") -> list[str]:
    from derain_cli.connections.space import GIGA
    from derain_cli.models.rdmc import CANDIDATES

    lines = []
    rows = zip(("skip-up", "skip-down"), CANDIDATES, found.shares, found.entropies, strict=True)
    for kind, edges, shares, entropy in rows:
        kept = ", ".join(
            f"{source}-{target} ({share:.3f})"
            for (source, target), share in zip(edges, shares, strict=True)
            if (source, target) in found.edges
        )
        lines.append(f"{kind}: {kept}; entropy {entropy:.3f}")
    return [*lines, f"{found.cost / GIGA:.3f} GMAC at 256x256"]


def _candidate_lines(result: "SearchResult") -> list[str]:
    from derain_cli.connections.space import GIGA

    return [
        f"{candidate.name}: {candidate.psnr:.2f} dB, {candidate.cost / GIGA:.3f} GMAC, "
        + " ".join(f"{source}-{target}" for source, target in candidate.edges)
        for candidate in result.candidates
    ]
