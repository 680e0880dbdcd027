"""Do searched edges beat the paper's and random ones?

Run it: `python tests/benchmarks/search_comparison.py --out FOLDER`.

For every seed: search on one data set, then train the found edges, the paper's four and some random
choices, all with the same data, steps and seed, and score each final network on the held-out whole
images (PSNR, luma). Prints a table with the mean and the spread (sample standard deviation) over
all networks of a kind, and the differences seed by seed.

Everything lies in `--out`; run it again to go on where it was stopped. About 0.3 s (search) and
0.1 s (training) of two CPU cores per step with the defaults: an hour and a half.
"""

import argparse
import dataclasses
import json
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from derain_cli.connections.space import GIGA
from derain_cli.models.rdmc import PAPER_CONNECTIONS, Connection
from derain_cli.training.configs.search import SearchConfig
from derain_cli.training.searcher import candidate_config, search, search_space
from derain_cli.training.trainer import Progress, train

DATA = os.environ.get("DERAIN_DATA", str(Path(__file__).parents[3] / "shared" / "data"))
KINDS = ("found", "paper", "random")


def main() -> None:
    """Search, train, print the table."""
    arguments = _arguments()
    results = [_compare(seed, arguments) for seed in range(arguments.seeds)]
    (arguments.out / "results.json").write_text(json.dumps(results, indent=2))
    print(_table(results))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--data-root", default=DATA)
    parser.add_argument("--dataset", default="rain100l_train")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--random", type=int, default=3, help="random choices per seed")
    parser.add_argument("--search-steps", type=int, default=1500)
    parser.add_argument("--train-steps", type=int, default=2500)
    parser.add_argument("--alpha-lr", type=float, default=3e-3)
    parser.add_argument("--second-order", action="store_true")
    parser.add_argument("--keep", type=int, default=2)
    parser.add_argument("--budget", type=float, default=0.0)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--held-out", type=int, default=20)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    return parser.parse_args()


def _config(seed: int, arguments: argparse.Namespace) -> SearchConfig:
    names = {field.name for field in dataclasses.fields(SearchConfig)}
    given = {name: value for name, value in vars(arguments).items() if name in names}
    own = {
        "dataset": (arguments.dataset,),
        "seed": seed,
        "steps": arguments.search_steps,
        "validate_every": 0,  # the final network is scored, not the best of many
        "images": 0,
    }
    return SearchConfig(**(given | own))


def _compare(seed: int, arguments: argparse.Namespace) -> list[dict[str, object]]:
    """Every network of a seed: its name, edges, cost and PSNR."""
    config, folder = _config(seed, arguments), arguments.out / f"seed-{seed}"
    space = search_space(config)
    begun = (folder / "search" / "config.json").exists()
    found = search(config, folder / "search", resume=begun, report=_report).found
    choices: dict[str, Sequence[Connection]] = {"found": found.edges, "paper": PAPER_CONNECTIONS}
    drawn = space.draw(arguments.random, seed)
    choices |= {f"random-{number}": edges for number, edges in enumerate(drawn, start=1)}
    longer = dataclasses.replace(config, steps=arguments.train_steps)
    return [
        {
            "seed": seed,
            "name": name,
            "edges": [f"{source}-{target}" for source, target in sorted(edges)],
            "gmac": space.cost(edges) / GIGA,
            "psnr": _trained(longer, tuple(sorted(edges)), folder / name),
            "entropies": found.entropies if name == "found" else None,
        }
        for name, edges in choices.items()
    ]


def _trained(config: SearchConfig, edges: tuple[Connection, ...], folder: Path) -> float:
    result = train(
        candidate_config(config, edges),
        folder,
        resume=(folder / "config.json").exists(),
        report=lambda progress: _report(folder.name, progress),
    )
    return result.best_psnr


def _report(name: str, progress: Progress) -> None:
    if progress.step % 250 == 0:
        loss = progress.parts["loss"]
        print(f"{name}: step {progress.step} of {progress.steps}, {loss:.4f}", file=sys.stderr)


def _table(results: Sequence[Sequence[Mapping[str, object]]]) -> str:
    """Markdown: mean and spread per kind, then every network, then the differences by seed."""
    networks = [network for seed in results for network in seed]
    lines = ["| edges | networks | PSNR, mean | spread | GMAC, mean |", "|---|---|---|---|---|"]
    for kind in KINDS:
        scores, costs = ([n[key] for n in networks if _kind(n) == kind] for key in ("psnr", "gmac"))
        if scores:
            lines.append(
                f"| {kind} | {len(scores)} | {statistics.mean(scores):.3f} | {_spread(scores)} | "
                f"{statistics.mean(costs):.3f} |"
            )
    lines += ["", "| seed | network | PSNR | GMAC | edges", "|---|---|---|---|---"]
    lines += [
        f"| {n['seed']} | {n['name']} | {n['psnr']:.3f} | {n['gmac']:.3f} | {' '.join(n['edges'])}"
        for n in networks
    ]
    return "\n".join([*lines, "", *_differences(results)])


def _kind(network: Mapping[str, object]) -> str:
    return str(network["name"]).partition("-")[0]


def _spread(scores: Sequence[float]) -> str:
    return f"{statistics.stdev(scores):.3f}" if len(scores) > 1 else "-"


def _differences(results: Sequence[Sequence[Mapping[str, object]]]) -> list[str]:
    """Found minus the others of the same seed: the seed's own luck cancels."""
    lines = []
    for other in KINDS[1:]:
        differences = []
        for seed in results:
            scores = {kind: [n["psnr"] for n in seed if _kind(n) == kind] for kind in KINDS}
            if scores[other]:
                differences.append(scores["found"][0] - statistics.mean(scores[other]))
        if differences:
            shown = ", ".join(f"{difference:+.3f}" for difference in differences)
            mean, spread = statistics.mean(differences), _spread(differences)
            lines.append(f"found - {other}: {shown} dB by seed; mean {mean:+.3f}, spread {spread}")
    return lines


if __name__ == "__main__":
    main()
