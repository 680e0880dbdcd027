"""Which block does nimbus get? `python tests/benchmarks/nimbus_bakeoff.py --out FOLDER`.

Every design trains for the same compute: the time of its step is measured first, all designs in
turns, as processor time (a busy machine disturbs that least), and `--seconds` divided by it gives
the number of its steps. Data, seed, schedule and held-out images are the same. Printed are
parameters, GMAC and milliseconds of an image of 481x321, the largest difference between tiles and
the whole image, and the mean dB of the held-out images by source. Test sets are never looked at.

Run it again to go on where it was stopped; finished designs are read back.
"""

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from derain_cli.inference.derainer import Derainer
from derain_cli.models import build_model, find_model
from derain_cli.models.nimbus import NimbusConfig, receptive_radius
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.run_folder import read_metrics
from derain_cli.training.trainer import train

DATA = os.environ.get("DERAIN_DATA", str(Path(__file__).parents[3] / "shared" / "data"))

THREE_LEVELS = ("widths=[32,64,128]", "encoder=[2,3,6]", "decoder=[3,2]")
FOUR_LEVELS = ("widths=[48,96,128,160]", "encoder=[2,2,2,3]", "decoder=[2,2,2]")
DESIGNS: Mapping[str, tuple[str, ...]] = {
    "plain": ('block="plain"', *THREE_LEVELS),
    "gated": ('block="gated"', *THREE_LEVELS),
    "hybrid": ('block="hybrid"', "widths=[32,64,160]", "encoder=[2,3,8]", "decoder=[3,2]"),
    "naf": ('block="naf"', "widths=[32,64,128]", "encoder=[2,2,4]", "decoder=[2,2]"),
    "plain wide": ('block="plain"', "widths=[48,96,192]", "encoder=[1,2,4]", "decoder=[2,2]"),
    "plain deep": ('block="plain"', *FOUR_LEVELS),
    # As fast as plain deep for an image in bf16, within 10 %; today's default.
    "naf wide": ('block="naf"', "widths=[48,96,192]", "encoder=[2,2,4]", "decoder=[2,2]"),
    "naf wide, no full size": (
        'block="naf"',
        "widths=[48,96,192]",
        "encoder=[2,2,4]",
        "decoder=[2,2]",
        "full_size=0",
    ),
    "mixed": (
        'block="mixed"',
        "widths=[48,96,160,192]",
        "encoder=[2,2,3,4]",
        "decoder=[2,2,3]",
    ),
    "plain deep, no full size": ('block="plain"', *FOUR_LEVELS, "full_size=0"),
    "gated deep": (
        'block="gated"',
        "widths=[48,96,128,160]",
        "encoder=[2,2,3,4]",
        "decoder=[2,2,3]",
    ),
}
LOSSES: Mapping[str, tuple[str, ...]] = {
    "ssim+l1": ("ssim:1", "l1:1"),
    "l1+fft": ("l1:1", "fft:0.1"),
    "charbonnier": ("charbonnier:1",),
    "mse": ("mse:1",),
}
COMMON = TrainConfig(
    model="nimbus",
    dataset=("rain100l_train:2", "rain800_train:1", "rain200h_sample:0.5"),
    clean=("bsds_clean", "rain100l_train"),
    rain=("heavy:1", "pairs:rain200h_sample:1", "large:0.8", "streaks:streaks:0.8", "dry:0.5"),
    held_out=6,
    batch_size=8,
    crop=64,
    lr=8e-4,
    betas=(0.9, 0.99),
    warmup=50,
    clip_gradient=0.5,
    ema=0.99,
    validate_every=0,
    save_every=100,
    images=0,
    seed=1,
)


def main() -> None:
    """Train the designs, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--seconds", type=float, default=1800, help="processor time of each design")
    parser.add_argument("--designs", nargs="+", choices=DESIGNS, default=list(DESIGNS))
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=["ssim+l1"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--rounds", type=int, default=6, help="of the measurement of times")
    parser.add_argument("--data-root", default=DATA)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    times = measured_once(
        arguments.out / f"times-{arguments.precision}.json",
        arguments.designs,
        arguments.rounds,
        arguments.precision,
    )
    for design in arguments.designs:
        for loss in arguments.losses:
            steps = max(1, round(arguments.seconds / times[design]["step"]))
            config = dataclasses.replace(
                COMMON,
                model_option=DESIGNS[design],
                loss=LOSSES[loss],
                steps=steps,
                threads=arguments.threads,
                precision=arguments.precision,
                data_root=arguments.data_root,
            )
            run = f"{design} {loss} {arguments.precision}".replace(" ", "-")
            scores = trained(config, arguments.out / run)
            show(design, loss, steps, times[design], scores)


def measured_once(
    file: Path, designs: list[str], rounds: int, precision: str
) -> dict[str, dict[str, float]]:
    """Facts of the designs, measured now or read back: a continued comparison keeps its steps."""
    known = json.loads(file.read_text()) if file.exists() else {}
    if missing := [design for design in designs if design not in known]:
        known |= measure(missing, rounds, precision)
        file.write_text(json.dumps(known, indent=1))
    return known


def measure(designs: list[str], rounds: int, precision: str) -> dict[str, dict[str, float]]:
    """Processor seconds of a training step and of an image, all designs in turns; the fastest."""
    networks = {name: network_of(name).to(memory_format=torch.channels_last) for name in designs}
    seconds: dict[str, list[float]] = {name: [] for name in designs}
    image_seconds: dict[str, list[float]] = {name: [] for name in designs}
    crops = torch.rand(COMMON.batch_size, 3, COMMON.crop, COMMON.crop)
    crops = crops.contiguous(memory_format=torch.channels_last)
    image = torch.rand(1, 3, 321, 481).contiguous(memory_format=torch.channels_last)
    for _ in range(rounds):
        for name, network in networks.items():
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                began = time.process_time()
                network.zero_grad()
                network(crops).abs().mean().backward()
                seconds[name].append(time.process_time() - began)
                began = time.process_time()
                with torch.inference_mode():
                    network(image)
                image_seconds[name].append(time.process_time() - began)
    return {
        name: {"step": min(seconds[name]), "image": min(image_seconds[name])} | facts(name)
        for name in designs
    }


def network_of(design: str) -> torch.nn.Module:
    """The untrained network of a design."""
    return build_model("nimbus", TrainConfig(model_option=DESIGNS[design]).model_options())


def facts(design: str) -> dict[str, float]:
    """Millions of parameters, GMAC, receptive radius, and levels by which tiles differ."""
    network = network_of(design)
    assert isinstance(network.config, NimbusConfig)
    radius = receptive_radius(network.config)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, 321, 481))
    million = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    gmac = counter.get_total_flops() / 2e9
    return {"million": million, "gmac": gmac, "radius": radius, "tiles": tile_error(network)}


def tile_error(network: torch.nn.Module) -> float:
    """Largest difference of tiles of 256 and the whole image, in levels, weights not small."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    image = np.random.default_rng(0).integers(0, 256, (384, 512, 3), np.uint8)
    entry = find_model("nimbus")
    whole = Derainer(network, entry, name="nimbus", tile=0)(image)
    tiles = Derainer(network, entry, name="nimbus", tile=256, tile_overlap=120)(image)
    return float(np.abs(whole.astype(int) - tiles).max())


def trained(config: TrainConfig, folder: Path) -> dict[str, float]:
    """Held-out scores of a finished run, trained now as far as it is not."""
    resume = (folder / "config.json").exists()
    train(config, folder, resume=resume)
    lines = [line for line in read_metrics(folder) if "validation" in line]
    scores: dict[str, float] = lines[-1]["validation"]
    return scores | {"mean": lines[-1]["psnr"]}


def show(
    design: str, loss: str, steps: int, fact: Mapping[str, float], scores: Mapping[str, float]
) -> None:
    """Print a line of the table."""
    left = f"{design:20} {loss:12} {steps:6} steps {1000 * fact['step']:5.0f} ms a step"
    size = f"{fact['million']:.2f} M {fact['gmac']:5.1f} GMAC {1000 * fact['image']:5.0f} ms"
    reach = f"radius {fact['radius']:.0f}, tiles {fact['tiles']:.0f} levels"
    shown = "  ".join(f"{name} {value:.2f}" for name, value in scores.items())
    sys.stdout.write(f"{left}  {size}  {reach}  {shown}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
