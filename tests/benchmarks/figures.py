"""The figures in `weights.toml` and in the documents, measured and written by one command.

    python tests/benchmarks/figures.py                    # documents from weights.toml
    python tests/benchmarks/figures.py --measure speed    # and first seconds per MP
    python tests/benchmarks/figures.py --measure dry --clean CLEAN -m nimbus-real

`seconds_per_megapixel` is the best of three runs of the engine with its default options on a
512x512 image with two CPU threads: their CPU time halved, so that other programs do not count. A
slow network, as HCN is, runs once.
`dry_psnr` is the mean PSNR (RGB, dB) of 20 photos without rain to themselves, `dry_psnr_median` and
`dry_psnr_worst` are what that mean hides. All are written into the entries of `weights.toml`. The
documents hold marks: what stands between
`<!-- figures: NAME -->` and `<!-- end -->` is made here from `weights.toml`.
"""

import argparse
import json
import re
import statistics
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / "weights" / "weights.toml"
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / ".github" / "docs").glob("*.md")))
SETS = {"rain100l": "Rain100L", "rain100h": "Rain100H", "ddn_sirr_test": "DDN-SIRR test"}
MARKED = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
SIDE, ROUNDS, THREADS, DRY_PHOTOS = 512, 3, 2, 20
LONG = 30.0  # seconds of processor time after which no further run begins

Entries = Mapping[str, dict[str, Any]]


def main() -> None:
    """Measure what is asked for, then write the documents."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", choices=("speed", "dry"))
    parser.add_argument("-m", "--model", action="append", help="Some weights; all without it.")
    parser.add_argument("--clean", type=Path, help="Photos without rain, for --measure dry.")
    chosen = parser.parse_args()
    for name in chosen.model or read_entries() if chosen.measure else ():
        if chosen.measure == "speed":
            measured = {"seconds_per_megapixel": seconds_per_megapixel(name)}
        else:
            measured = dry_psnr(name, chosen.clean)
        for field, value in measured.items():
            write_field(name, field, value)
            print(f"{name}: {field} {value}", flush=True)
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        if (new := with_figures(text, read_entries())) != text:
            path.write_text(new, encoding="utf-8")
            print(f"{path.relative_to(ROOT)} written")


def read_entries() -> Entries:
    """The tables of `weights.toml`."""
    return tomllib.loads(WEIGHTS.read_text(encoding="utf-8"))


def seconds_per_megapixel(name: str) -> float:
    """Best of a few runs, array to array, as two idle cores would take."""
    import numpy as np

    from derain_cli import Derainer

    derainer = Derainer.load(name, device="cpu", precision="auto", threads=THREADS)
    image = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    derainer(image[:64, :64])
    seconds = []
    while len(seconds) < ROUNDS and sum(seconds) * THREADS < LONG:
        began = time.process_time()
        derainer(image)
        seconds.append((time.process_time() - began) / THREADS)
    return float(f"{min(seconds) / SIDE**2 * 1e6:.2g}")


def dry_psnr(name: str, clean: Path) -> dict[str, float]:
    """PSNR of photos without rain to themselves: mean, median and worst."""
    import numpy as np

    from derain_cli import Derainer, read_image

    derainer = Derainer.load(name, device="cpu")
    values = []
    for path in sorted(clean.iterdir())[:DRY_PHOTOS]:
        photo = read_image(path).rgb
        error = np.square(derainer(photo).astype(float) - photo).mean()
        values.append(10 * np.log10(255**2 / max(error, 1e-9)))
    of = {"": statistics.mean, "_median": statistics.median, "_worst": min}
    return {f"dry_psnr{ending}": round(float(pick(values)), 2) for ending, pick in of.items()}


def write_field(name: str, field: str, value: float) -> None:
    """Set a number in an entry, every other line left as it is."""
    text = WEIGHTS.read_text(encoding="utf-8")
    begin = re.search(rf"^\[{re.escape(name)}\]$", text, re.MULTILINE)
    if begin is None:
        raise SystemExit(f"{WEIGHTS} has no entry {name!r}")
    end = re.compile(r"^\s*$|\Z", re.MULTILINE).search(text, begin.end() + 1)
    assert end is not None, "a text has an end"
    table, line = text[begin.start() : end.start()], f"{field} = {json.dumps(value)}\n"
    old = re.compile(rf"^{field} = .*\n", re.MULTILINE)
    table = old.sub(line, table) if old.search(table) else table + line
    WEIGHTS.write_text(text[: begin.start()] + table + text[end.start() :], encoding="utf-8")


def with_figures(text: str, entries: Entries) -> str:
    """A document with its marked parts made anew."""
    return MARKED.sub(lambda part: part[1] + BLOCKS[part[2]](entries) + part[3], text)


def sorted_by_use(entries: Entries) -> list[tuple[str, dict[str, Any]]]:
    """As `derain models list` shows them."""
    from derain_cli.cli.models import _by_use, _rows

    names = [row["name"] for row in sorted(_rows(), key=_by_use)]
    return [(name, entries[name]) for name in names if name in entries]


def choice(entries: Entries) -> str:
    """A short table: the weights for any photo."""
    rows = [(n, e) for n, e in sorted_by_use(entries) if n.endswith("-real") and "harm" not in e]
    head = ("weights", "s per megapixel", *SETS.values(), "a dry photo")
    return table(head, [(f"`{name}`", *figures(entry)) for name, entry in rows])


def everything(entries: Entries) -> str:
    """Every set of weights with PSNR and SSIM, the untouched input first."""
    inputs = next(e["scores"] for e in entries.values() if set(SETS) <= set(e["scores"]))
    untouched = ("untouched input", "", *(_score(inputs.get(name), "input_") for name in SETS), "")
    rows = [
        (f"`{n}`", _speed(e), *(_score(e.get("scores", {}).get(s)) for s in SETS), _dry(e))
        for n, e in sorted_by_use(entries)
    ]
    return table(("weights", "s per megapixel", *SETS.values(), "a dry photo"), [untouched, *rows])


def figures(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Speed, PSNR on each set, and PSNR of a dry photo to itself."""
    scores = [entry.get("scores", {}).get(name) for name in SETS]
    return (_speed(entry), *(f"{s['psnr']:.1f} dB" if s else "-" for s in scores), _dry(entry))


def _speed(entry: Mapping[str, Any]) -> str:
    return f"{entry['seconds_per_megapixel']:g}" if "seconds_per_megapixel" in entry else "-"


def _dry(entry: Mapping[str, Any]) -> str:
    if "dry_psnr" not in entry:
        return "-"
    worst = f", worst {entry['dry_psnr_worst']:.1f}" if "dry_psnr_worst" in entry else ""
    return f"{entry['dry_psnr']:.1f} dB{worst}"


def _score(score: Mapping[str, Any] | None, whose: str = "") -> str:
    return f"{score[f'{whose}psnr']:.2f} / {score[f'{whose}ssim']:.4f}" if score else "-"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of Markdown."""
    head = tuple(head)
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def speed(entries: Entries) -> str:
    """A sentence on the default's speed."""
    name, entry = sorted_by_use(entries)[0]
    seconds = entry.get("seconds_per_megapixel", 0)
    return (
        f"`{name}`, the default, takes {seconds:g} s per megapixel on two CPU cores: about "
        f"{_minutes(12 * seconds)} for a photo of 12 megapixels.\n"
    )


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} minutes"


BLOCKS: Mapping[str, Callable[[Entries], str]] = {
    "choice": choice,
    "everything": everything,
    "speed": speed,
}

if __name__ == "__main__":
    main()
