"""What an online update (HCN, eq. 6) does to real photos.

Run it: `python tests/benchmarks/online_update_gain.py --model NAME --out FOLDER`.

Adapts weights to the first photos of `ddn_sirr_real` and compares the last network with the one it
came from: rain removed, rain left, NIQE, and the PSNR (luma) of held-out pairs of `rain100l_train`.
Rain left is what a judge that takes no part (`--judge`) still takes out of derained photos: RMS,
levels of 255. Images before and after, side by side with the photo, lie in `--out/images`.
"""

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from derain_cli.cli.finetune_real import config_of
from derain_cli.datasets.image_cache import read_pixels
from derain_cli.datasets.layouts import list_images
from derain_cli.inference.derainer import Derainer
from derain_cli.inference.memory import keep_freed_memory
from derain_cli.metrics.full_reference import psnr
from derain_cli.metrics.niqe import niqe
from derain_cli.training.configs.finetune import FinetuneConfig
from derain_cli.training.recipes.paired import sources_of
from derain_cli.training.trainer import train

DATA = Path(os.environ.get("DERAIN_DATA", str(Path(__file__).parents[3] / "shared" / "data")))
Pixels = NDArray[np.uint8]


def main() -> None:
    """Adapt, print the table, write the images."""
    arguments = _arguments()
    keep_freed_memory()
    config = _config(arguments)
    if not (arguments.out / "run" / "last.safetensors").exists():
        train(config, arguments.out / "run")
    networks = {
        "before": Derainer.load(arguments.model, device="cpu"),
        "after": Derainer.load(str(arguments.out / "run" / "last.safetensors"), device="cpu"),
    }
    judge = Derainer.load(arguments.judge, device="cpu")
    photos = [read_pixels(path) for path in list_images(Path(config.real))]
    derained = {name: [network(photo) for photo in photos] for name, network in networks.items()}
    print("| network | rain removed | rain left | NIQE | held-out PSNR |\n|---|---|---|---|---|")
    for name, network in networks.items():
        row = (
            _apart(photos, derained[name]),
            _apart(derained[name], [judge(image) for image in derained[name]]),
            float(np.mean([niqe(image) for image in derained[name]])),
            float(
                np.mean([psnr(network(rainy), clean, "y") for rainy, clean in _held_out(config)])
            ),
        )
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in row) + " |", flush=True)
    _write_images(photos, derained, arguments.out / "images")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="weights trained on rain100l_train only")
    parser.add_argument("--judge", default="rdmc-real")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data-root", type=Path, default=DATA)
    parser.add_argument("--photos", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--lr", type=float, default=1e-5)
    parser.add_argument("--kl-weight", type=float, default=8.0)
    parser.add_argument("--pseudo-passes", type=int, default=1)
    parser.add_argument("--pseudo-truth", default="online")
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _config(arguments: argparse.Namespace) -> FinetuneConfig:
    """As `derain finetune-real --method online-update` makes it."""
    folder = arguments.out / "photos"
    folder.mkdir(parents=True, exist_ok=True)
    for path in list_images(arguments.data_root / "ddn_sirr_real")[: arguments.photos]:
        if not (folder / path.name).exists():
            (folder / path.name).symlink_to(path.resolve())
    same = ("epochs", "lr", "kl_weight", "crop", "batch_size", "seed")
    same += ("pseudo_passes", "pseudo_truth")
    given = {name: getattr(arguments, name) for name in same} | {"device": "cpu", "held_out": 10}
    given |= {"dataset": ("rain100l_train",), "data_root": str(arguments.data_root)}
    given |= {"real": str(folder)}
    return config_of("online-update", arguments.model, given, from_scratch=False)


def _held_out(config: FinetuneConfig) -> Iterator[tuple[Pixels, Pixels]]:
    return (pair for source in sources_of(config) for pair in source.validation())


def _apart(first: Sequence[Pixels], second: Sequence[Pixels]) -> float:
    """Root mean square difference, levels: mean over the images' energies."""
    energies = [
        np.mean((one.astype(np.float32) - other) ** 2)
        for one, other in zip(first, second, strict=True)
    ]
    return float(np.sqrt(np.mean(energies)))


def _write_images(
    photos: Sequence[Pixels], derained: Mapping[str, Sequence[Pixels]], folder: Path
) -> None:
    folder.mkdir(exist_ok=True)
    for number, (photo, before, after) in enumerate(zip(photos, *derained.values(), strict=True)):
        side_by_side = np.concatenate((photo, before, after), axis=1)
        cv2.imwrite(str(folder / f"{number:03}.png"), side_by_side[..., ::-1])


if __name__ == "__main__":
    main()
