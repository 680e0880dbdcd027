"""The torch engine on a CUDA card gives the CPU's image: `pytest -m gpu`.

What a CPU can check runs in the default suite as well.
"""

import numpy as np
import pytest
import torch

from derain_cli.inference.derainer import Derainer
from derain_cli.models import MODELS, build_model
from tests.inference.test_derainer import noise

NO_CARD = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NO_CARD])]
SMALL = {"rdmc": {"widths": (4, 4, 4, 4, 4), "stages": 2}, "menet": {"width": 8}, "unet": {}}


def small(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model(name, SMALL[name])


def by_hand(model: torch.nn.Module, rainy: np.ndarray) -> np.ndarray:
    """The network's image by its plain call on the CPU."""
    levels = torch.from_numpy(rainy).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        derained = model.eval()(levels)[0].clamp(0, 1) * 255
    return derained.round().permute(1, 2, 0).numpy().astype(int)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("device", DEVICES)
def test_a_device_gives_the_image_of_the_plain_network(name: str, device: str) -> None:
    model, rainy = small(name), noise(150, 230)
    derained = Derainer(model, MODELS[name], name=name, device=device, tile=0)(rainy)
    # A card multiplies float32 of convolutions with fewer bits (TF32), as torch has it by default.
    assert np.abs(derained - by_hand(model, rainy)).max() <= (1 if device == "cpu" else 2)


@pytest.mark.parametrize("device", DEVICES[1:])
def test_tiles_on_a_card_are_those_of_the_cpu(device: str) -> None:
    model, rainy = small("menet"), noise(150, 230)
    wanted = Derainer(model, MODELS["menet"], name="menet", device="cpu", tile=96)(rainy)
    derained = Derainer(model, MODELS["menet"], name="menet", device=device, tile=96)(rainy)
    assert np.abs(derained.astype(int) - wanted).max() <= 2


@pytest.mark.parametrize("device", DEVICES[1:])
@pytest.mark.parametrize("precision", ["bf16", "fp16", "auto"])
def test_lower_precisions_stay_within_two_levels(device: str, precision: str) -> None:
    model, rainy = small("rdmc"), noise(150, 230)
    derainer = Derainer(model, MODELS["rdmc"], name="rdmc", device=device, precision=precision)
    assert np.abs(derainer(rainy) - by_hand(model, rainy)).max() <= 2


@pytest.mark.parametrize("device", DEVICES[1:])
def test_a_compiled_network_gives_the_same_image(device: str) -> None:
    model, rainy = small("unet"), noise(96, 128)
    plain = Derainer(model, MODELS["unet"], name="unet", device=device)(rainy)
    compiled = Derainer(model, MODELS["unet"], name="unet", device=device, compile=True)
    assert np.abs(compiled(rainy).astype(int) - plain).max() <= 1
