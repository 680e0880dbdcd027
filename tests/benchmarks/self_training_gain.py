"""What self-training gains over the same labels alone, at equal steps.

Run it: `python tests/benchmarks/self_training_gain.py --base RUN --out FOLDER`.

(a) `real`: from weights trained on `rain100l_train` (`--base`), with its labels and the photos of
    `ddn_sirr_real`; scored on `ddn_sirr_test`, dense and sparse, PSNR on RGB.
(b) `unlabelled`: from weights trained on 20 % of `rain100l_train`, with those labels and the rainy
    sides of the other 80 %; scored on the held-out pairs and on `rain100l`, PSNR on luma.

Both arms of a comparison are `derain finetune-real --method self-training`, one with
`--without self-training`; the network after the last step is scored, not a chosen one. Everything
lies in `--out`; run it again to go on where it was stopped.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from derain_cli.checkpoints.resolving import load_model
from derain_cli.datasets.image_cache import read_pair
from derain_cli.datasets.known import dataset_pairs
from derain_cli.datasets.layouts import Pair
from derain_cli.inference.derainer import Derainer
from derain_cli.inference.memory import keep_freed_memory
from derain_cli.metrics.full_reference import psnr
from derain_cli.models import find_model
from derain_cli.training.configs.finetune import FinetuneConfig
from derain_cli.training.data.samples import PairSource
from derain_cli.training.recipes.self_training import labelled_sources
from derain_cli.training.trainer import Progress, train

DATA = os.environ.get("DERAIN_DATA", str(Path(__file__).parents[3] / "shared" / "data"))
ARMS: Mapping[str, tuple[str, ...]] = {"labels alone": ("self-training",), "self-training": ()}
Scores = dict[str, float]


def main() -> None:
    """Train all arms of all seeds, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--model", default="moss", help="network; any can be self-trained")
    parser.add_argument("--base", type=Path, help="run of it trained on rain100l_train, for (a)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--data-root", default=DATA)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=600, help="of each arm")
    parser.add_argument("--base-steps", type=int, default=1200, help="on 20 %% of the labels, (b)")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--base-lr", type=float, default=1e-3, help="of (b)'s base")
    parser.add_argument("--ema", type=float, default=0.995)
    parser.add_argument("--noisy-weight", type=float, default=1.0)
    parser.add_argument("--pseudo-passes", type=int, default=1)
    parser.add_argument("--alpha", type=float, nargs=2, default=(0.5, 1.1))
    parser.add_argument("--model-option", nargs="+", default=[], help="of (b)'s base")
    parser.add_argument("--precision", default="bf16")
    arguments = parser.parse_args()
    keep_freed_memory()
    for part in arguments.parts:
        results = [PARTS[part](seed, arguments) for seed in range(arguments.seeds)]
        (arguments.out / f"{part}.json").write_text(json.dumps(results, indent=2))
        print(f"\n({part})\n{table(results)}", flush=True)


def with_real_photos(seed: int, arguments: argparse.Namespace) -> dict[str, Scores]:
    """Scores on DDN-SIRR of the network as it came and of both arms."""
    pairs = dataset_pairs("ddn_sirr_test", Path(arguments.data_root))
    groups = {"dense": pairs[:10], "sparse": pairs[10:]}
    real = str(Path(arguments.data_root) / "ddn_sirr_real")
    runs = {"before": arguments.base} | _arms(seed, arguments, "real", real, str(arguments.base))
    return {name: _scores(run, groups, "rgb") for name, run in runs.items()}


def with_unlabelled_pairs(seed: int, arguments: argparse.Namespace) -> dict[str, Scores]:
    """Scores on held-out pairs and Rain100L, after training on 20 % of the labels and both arms."""
    folder = arguments.out / f"unlabelled-{seed}"
    config = _config(
        seed, arguments, steps=arguments.base_steps, lr=arguments.base_lr, labelled=0.2
    )
    photos, held_out = _unlabelled(config, folder / "photos")
    from_scratch = {"real": str(photos), "without": ("self-training",), "lr_schedule": "cosine"}
    options = {"model_option": tuple(arguments.model_option), "freeze_norm_from": 0.4}
    base = _trained(config, folder / "base", **options, **from_scratch)
    runs = {"before": base} | _arms(seed, arguments, "unlabelled", str(photos), str(base))
    groups = {
        "held out": held_out,
        "rain100l": dataset_pairs("rain100l", Path(arguments.data_root)),
    }
    return {name: _scores(run, groups, "y") for name, run in runs.items()}


PARTS = {"real": with_real_photos, "unlabelled": with_unlabelled_pairs}


def _arms(
    seed: int, arguments: argparse.Namespace, part: str, real: str, base: str
) -> dict[str, Path]:
    network = load_model(base).model.config
    options = tuple(f"{name}={json.dumps(value)}" for name, value in vars(network).items())
    share = 0.2 if part == "unlabelled" else 1.0
    config = _config(seed, arguments, weights=base, real=real, labelled=share, model_option=options)
    folder = arguments.out / f"{part}-{seed}"
    return {
        name: _trained(config, folder / name.replace(" ", "-"), without=without)
        for name, without in ARMS.items()
    }


def _config(seed: int, arguments: argparse.Namespace, **fields: object) -> FinetuneConfig:
    """Two looks at the photos, before and after; no warm-up: the networks come trained."""
    steps = fields.pop("steps", arguments.steps)
    names = ("batch_size", "crop", "ema", "precision", "noisy_weight", "pseudo_passes")
    own = {name: getattr(arguments, name) for name in names} | {"alpha": tuple(arguments.alpha)}
    common = {"lr": arguments.lr, "lr_schedule": "constant", "warmup_epochs": 0, "held_out": 10}
    named = {"model": arguments.model, "recipe": "self_training", "dataset": ("rain100l_train",)}
    paths = {"data_root": arguments.data_root, "seed": seed, "device": "cpu"}
    every = {"steps": steps, "epoch_steps": steps, "save_every": 100}
    return FinetuneConfig(**(own | common | named | paths | every | fields))


def _trained(config: FinetuneConfig, folder: Path, **fields: object) -> Path:
    chosen = FinetuneConfig(**(vars(config) | fields))
    done = folder / "last.safetensors"
    if not done.exists():
        train(chosen, folder, resume=(folder / "state.pt").exists(), report=_report)
    return done


def _report(progress: Progress) -> None:
    if progress.step % 100 == 0:
        parts = {name: round(value, 4) for name, value in progress.parts.items()}
        print(f"step {progress.step} of {progress.steps}: {parts}", file=sys.stderr, flush=True)


def _unlabelled(config: FinetuneConfig, folder: Path) -> tuple[Path, list[Pair]]:
    """(folder of links to the rainy sides without labels, held-out pairs)."""
    (kept,) = (source for source in labelled_sources(config) if isinstance(source, PairSource))
    taken = {pair.rainy for pair in (*kept.training, *kept.held_out)}
    folder.mkdir(parents=True, exist_ok=True)
    for pair in dataset_pairs("rain100l_train", Path(config.data_root)):
        link = folder / pair.rainy.name
        if pair.rainy not in taken and not link.exists():
            link.symlink_to(pair.rainy.resolve())
    return folder, list(kept.held_out)


def _scores(weights: Path, groups: Mapping[str, list[Pair]], protocol: str) -> Scores:
    loaded = load_model(weights)
    entry = find_model(loaded.architecture)
    derainer = Derainer(loaded.model, entry, name=loaded.architecture, device="cpu")
    return {
        name: float(
            np.mean([psnr(derainer(rainy), clean, protocol) for rainy, clean in _read(pairs)])
        )
        for name, pairs in groups.items()
    }


def _read(pairs: list[Pair]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    return (read_pair(pair) for pair in pairs)


def table(results: list[dict[str, Scores]]) -> str:
    """Markdown: PSNR of every seed and arm, then the gain by seed, its mean and spread."""
    groups = list(results[0]["before"])
    lines = [
        "| seed | " + " | ".join(["network", *groups]) + " |",
        "|---" * (len(groups) + 2) + "|",
    ]
    for seed, arms in enumerate(results):
        for name, scores in arms.items():
            shown = " | ".join(f"{scores[group]:.2f}" for group in groups)
            lines.append(f"| {seed} | {name} | {shown} |")
    for group in groups:
        gains = [arms["self-training"][group] - arms["labels alone"][group] for arms in results]
        spread = f", spread {statistics.stdev(gains):.2f}" if len(gains) > 1 else ""
        each = ", ".join(f"{gain:+.2f}" for gain in gains)
        lines.append(f"\ngain on {group}: {each} dB; mean {statistics.mean(gains):+.2f}{spread}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
