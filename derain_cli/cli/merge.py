"""`derain merge`: combine the manifests or scores of several shards."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from derain_cli.cli.streams import printable
from derain_cli.errors import UsageError

if TYPE_CHECKING:
    from derain_cli.scale.manifest import Merged


def merge(
    manifests: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES",
            help="Manifests (.jsonl) from --manifest, or scores (.csv) from eval --csv.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write them as one file."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the counts as JSON on stdout.")
    ] = False,
) -> None:
    """Combine the manifests or scores of several runs.

    The exit code is 1 if an image failed in every run.
    """
    from derain_cli.scale.manifest import merge_manifests

    if all(path.suffix.lower() == ".csv" for path in manifests):
        _merge_scores(manifests, output, as_json=as_json)
        return
    merged = merge_manifests(manifests)
    if output is not None:
        _write(merged, output, manifests)
    _say(merged, as_json=as_json)
    if merged.failed:
        raise typer.Exit(1)


def _write(merged: "Merged", output: Path, manifests: list[Path]) -> None:
    from derain_cli.cli.output_files import require_output_file
    from derain_cli.whole_files import write_whole

    require_output_file(output, "-o", ".jsonl")
    _refuse_input(output, manifests)
    write_whole(output, b"".join(record.line() for record in merged.records.values()))


def _refuse_input(output: Path, files: list[Path]) -> None:
    if any(output.exists() and output.samefile(path) for path in files):
        raise UsageError(f"-o {str(output)!r} is one of the inputs: name another file")


def _say(merged: "Merged", *, as_json: bool) -> None:
    import json

    failed = merged.failed
    counts = {
        "images": len(merged.records),
        "done": len(merged.records) - len(failed),
        "failed": len(failed),
        "done_twice": len(merged.twice),
    }
    if as_json:
        typer.echo(json.dumps(counts))
    else:
        seconds = sum(record.seconds or 0 for record in merged.records.values())
        typer.echo(
            f"{counts['images']} images: {counts['done']} done, {counts['failed']} failed, "
            f"{counts['done_twice']} done by more than one run; {seconds:.1f} s of work"
        )
    for record in failed:
        typer.echo(printable(f"failed: {record.input}: {record.error}"), err=True)


def _merge_scores(files: list[Path], output: Path | None, *, as_json: bool) -> None:
    """The tables of `eval` over the rows of all files."""
    from derain_cli.cli.output_files import require_output_file
    from derain_cli.cli.scores import show_json, show_tables, summarise_rows
    from derain_cli.scale.score_files import read_scores, write_scores

    merged = read_scores(files)
    if output is not None:
        require_output_file(output, "-o", ".csv")
        _refuse_input(output, files)
        write_scores(output, merged)
    for name in merged.twice[:3]:
        line = f"scored by more than one run, using the first score: {name}"
        typer.echo(printable(line), err=True)
    seconds = sum(row.seconds for row in merged.rows)
    results = summarise_rows(merged.rows, seconds, "each run's own precision")
    (show_json if as_json else show_tables)(results)
