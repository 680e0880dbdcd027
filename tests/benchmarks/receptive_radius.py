"""What a new network's line in MODELS needs: `python -m tests.benchmarks.receptive_radius NAME`.

Measures how far an output pixel sees, and how far tiles are from the whole image by overlap; the
least overlap whose tiles differ by at most one level of 255 is a good `tile_overlap`. Untrained
weights see as far as trained ones, but they weigh distant pixels otherwise: name trained
`--weights` for the overlap as soon as there are some.
"""

import argparse
import copy

import numpy as np
import torch
from torch import nn

from derain_cli.inference.derainer import Derainer
from derain_cli.models import build_model, find_model
from tests.benchmarks.tiles_against_whole import rainy_sample

LONGEST = 4096  # pixels: a network that sees farther is taken to see the whole image
SEEDS = 3


def main() -> None:
    """Print the radius, then a line for each overlap."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a name in MODELS")
    parser.add_argument("--weights", help="trained weights of it, for the overlap")
    parser.add_argument("--tile", type=int, default=512, help="pixels, with the overlap")
    arguments = parser.parse_args()
    entry, radius = find_model(arguments.model), measured_radius(arguments.model)
    seen = "the whole image" if radius is None else f"{radius} pixels"
    print(f"{arguments.model}: an output pixel sees {seen} (MODELS: {entry.receptive_radius})")
    rainy = rainy_sample(1500, 1000)
    whole = derainer(arguments, tile=0)(rainy).astype(int)
    for overlap in range(32, arguments.tile // 2 + 1, 32):
        tiled = derainer(arguments, tile=arguments.tile, tile_overlap=overlap)(rainy)
        print(f"overlap {overlap}: at most {np.abs(tiled - whole).max()} levels")


def derainer(arguments: argparse.Namespace, **options: int) -> Derainer:
    """The network in tiles, trained if weights are named."""
    if arguments.weights:
        return Derainer.load(arguments.weights, **options)
    torch.manual_seed(0)
    model = build_model(arguments.model)
    return Derainer(model, find_model(arguments.model), name=arguments.model, **options)


def measured_radius(name: str) -> int | None:
    """Farthest column that the middle of a long strip depends on; None for the whole strip."""
    multiple = find_model(name).padding_multiple
    length = 256
    while length <= LONGEST:
        reaches = [reach(name, seed, multiple, length) for seed in range(SEEDS)]
        if max(reaches) < length // 2 - 2 * multiple:
            return max(reaches)
        length *= 2
    return None


def reach(name: str, seed: int, multiple: int, length: int) -> int:
    """Distance of the farthest column with a gradient, over every place in the network's grid."""
    torch.manual_seed(seed)
    model = positive(build_model(name).eval())
    farthest = 0
    for shift in range(0, multiple, max(1, multiple // 4)):
        rainy = torch.rand(1, 3, 2 * multiple + 16, length, dtype=torch.float64, requires_grad=True)
        column = length // 2 + shift
        derained = model(rainy)[..., column].sum()
        (gradient,) = torch.autograd.grad(derained, rainy)
        columns = gradient.abs().sum(dim=(0, 1, 2)).nonzero().flatten()
        farthest = max(farthest, int((columns - column).abs().max()))
    return farthest


def positive(model: nn.Module) -> nn.Module:
    """Positive weights: no path of the network is cut by a ReLU or cancels another."""
    model = copy.deepcopy(model).double()
    for parameter in model.parameters():
        parameter.data = parameter.data.abs() * 0.1
    return model


if __name__ == "__main__":
    main()
