"""The engine: whole and tiled, folded and not; memory, precision, devices, options."""

import copy
import dataclasses
import math
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from derain_cli.checkpoints.files import save_checkpoint
from derain_cli.errors import (
    CheckpointError,
    ImageError,
    ResourceError,
    UnavailableError,
    UsageError,
)
from derain_cli.inference.bands import RunFacts, TiledRun
from derain_cli.inference.derainer import Derainer
from derain_cli.inference.devices import choose_device
from derain_cli.inference.folding import folded_network
from derain_cli.inference.memory import memory_budget
from derain_cli.models import MODELS, ModelEntry, build_model, entry_of
from derain_cli.models.rdmc import Rdmc, RdmcConfig
from derain_cli.models.unet import UNetConfig
from derain_cli.rain.painting import heavy_layer, paint

RADIUS = 12
EXACT_OVERLAP = 48


class Smoother(nn.Module):
    """A small U-shaped network: two levels, so that tiles must sit on its grid; radius below 12."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.inner = nn.Conv2d(3, 8, 3, padding=1)
        self.outer = nn.Conv2d(8 + 3, 3, 3, padding=1)
        for parameter in self.parameters():
            parameter.data.uniform_(-0.3, 0.3, generator=generator)

    def forward(self, rainy: Tensor) -> Tensor:
        assert rainy.shape[-1] % 4 == rainy.shape[-2] % 4 == 0
        below = F.relu(self.inner(F.max_pool2d(rainy, 4)))
        above = F.interpolate(below, scale_factor=4, mode="bilinear", align_corners=False)
        changed: Tensor = rainy + 0.2 * torch.tanh(self.outer(torch.cat((above, rainy), dim=1)))
        return changed


class Formula(nn.Module):
    """A network given by a function of one argument."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, rainy: Tensor) -> Tensor:
        result: Tensor = self.function(rainy)  # type: ignore[operator]
        return result


class Greedy(Smoother):
    """Asks for far more memory than any machine has when an image is longer than `limit`."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, rainy: Tensor) -> Tensor:
        torch.empty(2 ** (50 if max(rainy.shape) > self.limit else 2), dtype=torch.uint8)
        return super().forward(rainy)


def entry(**changes: object) -> ModelEntry:
    facts: dict[str, object] = {
        "build": Smoother,
        "config": dict,
        "paper": "",
        "padding_multiple": 4,
        "tile_overlap": EXACT_OVERLAP,
        "receptive_radius": RADIUS,
    }
    return ModelEntry(**(facts | changes))  # type: ignore[arg-type]


def derainer(model: nn.Module | None = None, **options: object) -> Derainer:
    facts = options.pop("entry", entry())
    return Derainer(model or Smoother(), facts, name="smoother", device="cpu", **options)


def noise(height: int, width: int, dtype: type = np.uint8) -> np.ndarray:
    generator = np.random.default_rng(height * width)
    return generator.integers(0, np.iinfo(dtype).max, (height, width, 3), dtype, endpoint=True)


def tiny_rdmc(**config: object) -> Rdmc:
    """A small RDMC whose batch norms did see images, so that folding them changes weights."""
    torch.manual_seed(0)
    model = Rdmc(RdmcConfig(widths=(4, 4, 4, 4, 4), stages=2, **config))
    visit_batch_norms(model)
    return model


def visit_batch_norms(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)


def by_hand(model: nn.Module, rainy: np.ndarray) -> np.ndarray:
    """The plain module's result in levels, as float64."""
    levels = np.iinfo(rainy.dtype).max
    tensor = torch.from_numpy(rainy.astype(np.float32) / levels).permute(2, 0, 1)[None]
    with torch.no_grad():
        derained = model.eval()(tensor)
    return derained[0].permute(1, 2, 0).double().clamp(0, 1).numpy() * levels


# Folding


def test_folded_rdmc_has_no_batch_norm_and_equals_the_plain_one() -> None:
    for norm_per_stage in (True, False):
        model = tiny_rdmc(norm_per_stage=norm_per_stage)
        folded = folded_network(model, MODELS["rdmc"], "rdmc")
        rainy = torch.rand(2, 3, 37, 50)
        assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
        assert model.training
        torch.testing.assert_close(folded(rainy), model.eval()(rainy), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_every_network_with_batch_norm_folds_wholly_and_stays_equal(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(name)
    if not any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        pytest.skip("no batch norm")
    visit_batch_norms(model)
    folded = folded_network(model, MODELS[name], name)
    rainy = torch.rand(1, 3, 32, 48)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    with torch.no_grad():
        plain = model.eval()(rainy)
        torch.testing.assert_close(folded(rainy), plain, rtol=1e-3, atol=1e-4)


class PreActivation(nn.Module):
    """A stranger's network: batch norm and ReLU in front of the convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.config = UNetConfig()
        self.norm = nn.BatchNorm2d(3)
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, rainy: torch.Tensor) -> torch.Tensor:
        return rainy - self.conv(torch.relu(self.norm(rainy)))


class WronglyFolded(PreActivation):
    """One that merges its batch norm as if it came after the convolution."""

    def folded(self) -> nn.Module:
        copied = copy.deepcopy(self)
        copied.conv = fuse_conv_bn_eval(copied.conv.eval(), copied.norm.eval())
        copied.norm = nn.Identity()
        return copied


def test_a_pre_activation_block_gives_the_networks_own_result() -> None:
    torch.manual_seed(0)
    model = PreActivation()
    visit_batch_norms(model)
    rainy = noise(40, 56)
    derained = Derainer(model, MODELS["unet"], name="stranger")(rainy)
    np.testing.assert_allclose(derained, by_hand(model, rainy), atol=0.51)


def test_a_network_that_folds_wrongly_is_refused_when_it_is_made_ready() -> None:
    torch.manual_seed(0)
    model = WronglyFolded()
    visit_batch_norms(model)
    with pytest.raises(CheckpointError, match=r"'stranger': merging its batch norms changes"):
        Derainer(model, MODELS["unet"], name="stranger")


def test_the_given_network_stays_as_it_is() -> None:
    model = tiny_rdmc()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    Derainer(model, MODELS["rdmc"], name="rdmc")(noise(20, 30))
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


# Tiles


@pytest.mark.parametrize("size", [(150, 203), (97, 400), (333, 64), (201, 198)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiles_equal_the_whole_image_at_an_exact_overlap(
    size: tuple[int, int], dtype: type
) -> None:
    rainy = noise(*size, dtype)
    whole, facts = derainer(tile=0).run(rainy)
    tiled, tiled_facts = derainer(tile=100).run(rainy)
    assert (facts.tile, tiled_facts.tile) == (0, 100)
    assert np.abs(tiled.astype(int) - whole).max() <= 1
    assert np.mean(tiled != whole) < 0.01  # float rounding at most


def test_tiles_off_the_networks_grid_would_differ() -> None:
    """What the previous test rests on: the network does depend on where its grid lies."""
    rainy = torch.rand(1, 3, 64, 64)
    moved = Smoother()(rainy[..., 1:61, 1:61])
    assert (Smoother()(rainy)[..., 30:33, 30:33] - moved[..., 29:32, 29:32]).abs().max() > 1e-3


def test_a_deeper_network_has_tiles_on_its_own_grid() -> None:
    deeper = entry_of(build_model("unet", {"widths": (4, 4, 4, 4, 4, 4)}))
    assert (deeper.padding_multiple, deeper.tile_overlap) == (32, 4 * MODELS["unet"].tile_overlap)
    assert deeper.not_tile_exact
    for config in ({"widths": (4, 4, 4, 4)}, {"widths": (4, 4)}):  # whose grid the entry's is too
        assert entry_of(build_model("unet", config)) is MODELS["unet"]


@pytest.mark.parametrize(
    ("name", "config", "multiple"),
    [
        ("nimbus", {"widths": (4,) * 5, "encoder": (1,) * 5, "decoder": (1,) * 4}, 64),
        ("moss", {"widths": (4,) * 5, "blocks": 1, "downsamplings": 4}, 16),
        ("swinir", {"window": 12, "depths": (2,), "channels": 12, "heads": 2}, 12),
    ],
)
def test_files_of_deeper_networks_are_loaded_with_their_own_grid(
    name: str, config: dict[str, Any], multiple: int, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "deep.safetensors", build_model(name, config), name, {})
    loaded = Derainer.load(tmp_path / "deep.safetensors", device="cpu", engine="torch", tile=256)
    assert loaded.entry.padding_multiple == multiple
    (notice,) = loaded.run(noise(270, 260))[1].notices
    assert "was not measured" in notice


def test_tiled_tensor_equals_the_whole_one() -> None:
    rainy = torch.rand(2, 3, 130, 171)
    whole, tiled = derainer(tile=0), derainer(tile=96)
    torch.testing.assert_close(
        tiled.derain_tensor(rainy), whole.derain_tensor(rainy), rtol=0, atol=1e-6
    )


def test_bands_run_along_the_short_side() -> None:
    """Else a panorama's band of floats would be nearly as large as the image."""
    for size in ((60, 2000), (2000, 60)):
        run = TiledRun(derainer(tile=100), size, (100, 100), 32)
        assert (run.height, run.width, run.rows.count > 1) == (2000, 60, True)


def test_a_network_that_sees_the_whole_image_says_so_when_tiled() -> None:
    facts_of_model = entry(not_tile_exact="it sees everything", receptive_radius=None)
    rainy = noise(150, 150)
    assert derainer(tile=100, entry=facts_of_model).run(rainy)[1].notices == (
        "derained in tiles of 100 pixels: it sees everything",
    )
    assert derainer(tile=0, entry=facts_of_model).run(rainy)[1].notices == ()


def test_a_small_tile_halves_the_overlap_and_says_so() -> None:
    assert derainer(tile=64).run(noise(100, 30))[1].notices == (
        "tiles of 64 pixels overlap by 32, smoother wants 48: seams may show",
    )


def test_automatic_tiles_fit_the_budget() -> None:
    def hungry(rainy: Tensor) -> Tensor:
        torch.empty(1, 3600, *rainy.shape[-2:])  # never touched, so it costs nothing here
        return rainy * 0.4

    rainy = noise(600, 700)
    engine = derainer(Formula(hungry))
    derained, facts = engine.run(rainy)
    assert 256 <= facts.tile < 700
    most = memory_budget("cpu", rainy.nbytes)
    height, width = engine.tiling.first((1, 600, 700), engine.engine)
    assert height * width * 3600 * 4 <= most
    np.testing.assert_array_equal(derained, np.rint(rainy * 0.4).astype(np.uint8))
    assert derainer().run(rainy)[1].tile == 0


# Any image


@pytest.mark.parametrize("size", [(1, 1), (3, 1000), (1000, 3), (17, 31), (2, 2)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_any_size_and_depth_gives_what_the_network_gives(
    size: tuple[int, int], dtype: type
) -> None:
    model, rainy = tiny_rdmc(), noise(*size, dtype)
    derained = Derainer(model, MODELS["rdmc"], name="rdmc")(rainy)
    assert (derained.dtype, derained.shape) == (rainy.dtype, rainy.shape)
    assert np.abs(derained - by_hand(model, rainy)).max() < 0.6  # rounding, and float32 itself


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_network_that_changes_nothing_gives_every_level_back(dtype: type) -> None:
    levels = np.arange(np.iinfo(dtype).max + 1).astype(dtype)
    rainy = np.resize(levels, (257, 257, 3))
    for tile in (0, 128):
        derained = derainer(Formula(lambda rainy: rainy), tile=tile)(rainy)
        np.testing.assert_array_equal(derained, rainy)


def test_results_are_rounded_to_nearest_and_clipped() -> None:
    rainy = np.array([[[0, 100, 254], [1, 200, 255]]], dtype=np.uint8)
    expected = {0.4: rainy, 0.6: [[[1, 101, 255], [2, 201, 255]]], -9.6: [[[0, 90, 244]] * 2]}
    expected[-9.6] = np.clip(rainy.astype(int) - 10, 0, 255)
    for change, derained in expected.items():
        result = derainer(Formula(lambda rainy, change=change: rainy + change / 255))(rainy)
        np.testing.assert_array_equal(result, derained)


def test_arrays_may_be_read_only_and_oddly_strided() -> None:
    rainy = noise(60, 80)
    rainy.flags.writeable = False
    engine = derainer()
    np.testing.assert_array_equal(engine(rainy[::-1, ::2]), engine(rainy[::-1, ::2].copy()))


def test_what_is_no_image_is_refused() -> None:
    for array, words in (
        (np.zeros((4, 4, 3), np.float32), "not 4x4x3 of float32"),
        (np.zeros((4, 4), np.uint8), "not 4x4 of uint8"),
        (np.zeros((4, 4, 4), np.uint16), "not 4x4x4 of uint16"),
        (np.zeros((0, 4, 3), np.uint8), "4x0 pixels has nothing in it"),
    ):
        with pytest.raises(UsageError, match=words):
            derainer().run(array)


# Strength


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_strength_0_is_the_image_bit_for_bit_and_a_copy(dtype: type) -> None:
    rainy = noise(33, 47, dtype)
    derained = derainer(Formula(lambda rainy: rainy / 0))(rainy, strength=0)
    np.testing.assert_array_equal(derained, rainy)
    assert not np.shares_memory(derained, rainy)


def test_strength_blends_linearly_between_image_and_result() -> None:
    rainy = noise(150, 130, np.uint16)
    for image, tile in ((rainy, 0), (rainy, 100), (rainy.swapaxes(0, 1), 100)):
        engine = derainer(tile=tile)
        full = engine(image).astype(float)
        for strength in (0.25, 0.5, 0.9):
            expected = image + strength * (full - image)
            assert np.abs(engine(image, strength=strength) - expected).max() <= 1.01


@pytest.mark.parametrize("strength", [-0.1, 1.01, math.nan])
def test_strength_outside_of_its_range_is_refused(strength: float) -> None:
    with pytest.raises(UsageError, match=r"strength must lie in 0\.\.1"):
        derainer()(noise(4, 4), strength=strength)


# Tensors


def test_tensors_are_clipped_copied_and_fit_for_training() -> None:
    rainy = torch.rand(2, 3, 21, 30)
    before = rainy.clone()
    derained = derainer(Formula(lambda rainy: rainy * 3 - 1)).derain_tensor(rainy)
    torch.testing.assert_close(derained, (before * 3 - 1).clamp(0, 1))
    assert torch.equal(rainy, before)
    weight = torch.ones(1, requires_grad=True)
    F.mse_loss(weight * rainy, derained).backward()
    assert weight.grad is not None


# Tiles begun ahead, as on a card


@pytest.mark.parametrize("ahead", [1, 2, 9])
def test_tiles_that_are_begun_ahead_give_the_same_image(ahead: int) -> None:
    rainy, eager = noise(230, 310), derainer(tile=100)
    begin, under_way, most = eager.engine.begin, 0, 0

    def begun(*tile: Any) -> Callable[[], Any]:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        finish = begin(*tile)

        def wait() -> Any:
            nonlocal under_way
            under_way -= 1
            return finish()

        return wait

    eager.engine.ahead, eager.engine.begin = ahead, begun  # type: ignore[method-assign]
    np.testing.assert_array_equal(eager(rainy), derainer(tile=100)(rainy))
    assert under_way == 0
    assert most == min(ahead + 1, 4)  # tiles in a row


# Precision


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_is_close_and_reported(precision: str) -> None:
    model, rainy = tiny_rdmc(), noise(60, 77)
    whole = Derainer(model, MODELS["rdmc"], name="rdmc")(rainy)
    lower, facts = Derainer(model, MODELS["rdmc"], name="rdmc", precision=precision).run(rainy)
    assert facts == RunFacts(0, precision)
    assert 0 < np.abs(lower.astype(int) - whole).mean() < 0.5


@pytest.mark.parametrize("tile", [0, 100])
def test_what_overflows_in_fp16_is_redone_in_fp32_with_one_notice(tile: int) -> None:
    class Overflowing(Smoother):
        def forward(self, rainy: Tensor) -> Tensor:
            return super().forward(rainy) + 1e-6 * F.conv2d(rainy, torch.full((3, 3, 1, 1), 6e4))

    rainy = noise(130, 150)
    expected = derainer(Overflowing(), tile=tile)(rainy)
    derained, facts = derainer(Overflowing(), tile=tile, precision="fp16").run(rainy)
    np.testing.assert_array_equal(derained, expected)
    notice = "fp16 gave values that are not finite: redone in fp32"
    assert facts == RunFacts(tile, "fp32", (notice,))


def test_no_finite_values_even_in_fp32_is_an_error() -> None:
    with pytest.raises(ImageError, match="smoother gives values that are not finite"):
        derainer(Formula(lambda rainy: rainy / 0))(noise(5, 5))


# Memory


def test_out_of_memory_halves_the_tile_goes_on_and_remembers() -> None:
    rainy = noise(300, 701)
    engine = derainer(Greedy(limit=200), tile=0)
    derained, facts = engine.run(rainy)
    notices = tuple(f"out of memory: went on with tiles of {tile} pixels" for tile in (352, 176))
    assert facts == RunFacts(176, "fp32", notices)
    expected = derainer(tile=0)(rainy)
    assert np.abs(derained.astype(int) - expected).max() <= 1
    assert engine.run(rainy)[1] == RunFacts(176, "fp32")
    assert engine.run(noise(90, 80))[1] == RunFacts(0, "fp32")


def test_out_of_memory_in_the_middle_pastes_nothing_of_the_failed_attempt() -> None:
    class Failing(Smoother):
        tiles = 0

        def forward(self, rainy: Tensor) -> Tensor:
            Failing.tiles += 1
            if Failing.tiles == 5:
                torch.empty(2**50, dtype=torch.uint8)
            return super().forward(rainy) if Failing.tiles > 5 else torch.ones_like(rainy)

    rainy = noise(500, 610)
    derained, facts = derainer(Failing(), tile=300).run(rainy)
    assert facts.tile == 148
    assert np.abs(derained.astype(int) - derainer(tile=0)(rainy)).max() <= 1


def test_out_of_memory_at_the_smallest_tile_is_a_resource_error() -> None:
    with pytest.raises(ResourceError, match="cannot derain 410x300 pixels even in tiles") as caught:
        derainer(Greedy(limit=20))(noise(300, 410))
    assert caught.value.exit_code == 5


def test_other_errors_of_a_network_are_not_taken_for_memory() -> None:
    with pytest.raises(RuntimeError, match="size of tensor"):
        derainer(Formula(lambda rainy: rainy + torch.ones(7)))(noise(8, 8))


# Devices and options


def test_devices_by_name() -> None:
    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") in ("cpu", "cuda", "mps")
    for name in ("cuda:99", "tpu", "", "cpu:0"):
        with pytest.raises(UsageError, match=f"device '{name}' is not here. There is: auto, cpu"):
            choose_device(name)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "int8"}, "unknown precision 'int8'. Known: auto, fp32, bf16, fp16"),
        ({"threads": 0}, "threads must be at least 1, not 0"),
        ({"tile": 5}, "tile must be 0 or at least 32, not 5"),
        ({"tile": -64}, "tile must be 0 or at least 32, not -64"),
        ({"tile_overlap": -1}, "tile overlap must not be negative, not -1"),
        ({"tile": 64, "tile_overlap": 40}, "tile overlap must be at most half of tile 64: 32"),
    ],
)
def test_options_that_cannot_mean_anything(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        derainer(**options)


def test_tile_and_overlap_are_rounded_up_to_the_networks_grid() -> None:
    engine = derainer(tile=129, tile_overlap=29)
    assert (engine.tiling.tile, engine.tiling.overlap) == (132, 32)


def test_load_takes_a_checkpoint_and_its_own_entry(tiny_checkpoint: Path) -> None:
    engine = Derainer.load(tiny_checkpoint, tile=64)
    assert engine.name == tiny_checkpoint.stem
    assert engine.entry == dataclasses.replace(MODELS["rdmc"], receptive_radius=155)  # one stage
    rainy = noise(20, 30)
    assert engine(rainy).shape == rainy.shape
    with pytest.raises(UnavailableError, match="unknown model 'rdmc-moon'"):
        Derainer.load("rdmc-moon")


# Slow: compiling, a real shortage of memory, a large image


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler uses torch.jit
def test_compiled_networks_give_the_same_image_at_any_size() -> None:
    engine, plain = derainer(compile=True), derainer()
    for size in ((40, 60), (60, 40), (33, 90)):
        rainy = noise(*size)
        assert np.abs(engine(rainy).astype(int) - plain(rainy)).max() <= 1


@pytest.mark.slow
def test_compiling_without_a_compiler_is_one_clear_error() -> None:
    code = """
        from tests.inference.test_derainer import derainer, noise
        derainer(compile=True)(noise(40, 60))
    """
    result = run_python(code, CXX="/no/compiler", TORCHINDUCTOR_FORCE_DISABLE_CACHES="1")
    assert "UsageError: compile does not work here: " in result.stderr.splitlines()[-1]


def test_tiles_of_a_large_photo_compute_few_pixels_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("derain_cli.inference.memory.available_memory", lambda: 8 * 2**30)
    engine = Derainer(build_model("rdmc"), MODELS["rdmc"], name="rdmc", device="cpu")
    tile = engine.tiling.first((1, 4000, 6000), engine.engine)
    run = TiledRun(engine, (4000, 6000), tile, engine.tiling.overlap)
    computed = run.rows.count * run.rows.tile * run.columns.count * run.columns.tile
    assert computed / (4000 * 6000) <= 1.25


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="address space limits")
def test_a_real_shortage_of_memory_is_survived() -> None:
    code = """
        import resource
        import numpy as np
        import torch
        from derain_cli.inference.derainer import Derainer
        from derain_cli.models import MODELS, build_model
        from tests.inference.test_derainer import noise
        network = build_model("rdmc").eval()
        network(torch.zeros(1, 3, 64, 64))
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 300 * 2**20,) * 2)
        for tile in (0, None):
            derainer = Derainer(network, MODELS["rdmc"], name="rdmc", tile=tile)
            print(derainer.run(noise(1000, 1100))[1])
    """
    whole, automatic = run_python(code).stdout.splitlines()
    assert "out of memory: went on with tiles of 544 pixels" in whole
    assert "tile=0" not in automatic
    assert "notices=()" in automatic


@pytest.mark.slow
@pytest.mark.parametrize("tile", [None, 512])
def test_trained_weights_in_tiles_stay_within_a_level_of_the_whole_image(
    tile: int | None,
) -> None:
    try:
        whole, tiled = Derainer.load(tile=0), Derainer.load(tile=tile)
    except UnavailableError as error:
        pytest.skip(str(error))
    with Image.open(Path(__file__).parents[1] / "samples/rocket.jpg") as photo:
        clean = np.asarray(photo.convert("RGB").resize((1500, 1000)))
    rainy = paint(clean, heavy_layer(1000, 1500, np.random.default_rng(0)))
    derained, facts = tiled.run(rainy)
    assert facts.tile > 0
    difference = np.abs(whole(rainy).astype(int) - derained)
    assert difference.max() <= 1


def run_python(code: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    tests = Path(__file__).parents[1]
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (tests.parent, tests)))
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_progress_goes_from_tile_to_tile_up_to_the_whole() -> None:
    shares: list[float] = []
    _, facts = derainer(tile=100).run(noise(300, 200), on_progress=shares.append)
    assert facts.tile == 100
    assert shares == sorted(shares)
    assert len(shares) > 4
    assert shares[-1] == 1
    shares.clear()
    derainer(tile=0).run(noise(30, 20), on_progress=shares.append)
    assert shares == [1]


@pytest.mark.parametrize("size", [(300, 410), (410, 300), (333, 157)])
def test_channel_attention_sees_the_whole_image_through_tiles(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = build_model("menet", {"width": 16, "residual_blocks": 1})
    visit_batch_norms(model)
    nn.init.normal_(model.to_residual.weight, std=0.5)
    model.attention.weigh.norm.weight.data.fill_(100)
    rainy = torch.rand(1, 3, *size)
    rainy[..., : size[0] // 2, :] /= 4  # halves that want different attention
    tiled, whole = (
        Derainer(model, MODELS["menet"], name="menet", tile=tile, device="cpu") for tile in (208, 0)
    )
    assert not MODELS["menet"].not_tile_exact
    expected = whole.derain_tensor(rainy)
    with_mean = (tiled.derain_tensor(rainy) - expected).abs().max()
    assert with_mean < 0.01 / 255
    monkeypatch.setattr(tiled, "run_context", lambda rainy: None)  # each tile by its own mean
    assert (tiled.derain_tensor(rainy) - expected).abs().max() > 10 * with_mean
