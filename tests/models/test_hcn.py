import dataclasses
import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from derain_cli.models import hcn
from derain_cli.models.hcn import (
    DenseStack,
    EncoderDecoder,
    Hcn,
    HcnConfig,
    HcnOutputs,
    Mining,
    SimilarityMining,
    position_code,
)
from derain_cli.sizes import PYRAMIDS

torch.set_num_threads(1)

TINY = HcnConfig(channels=8, blocks=(2, 1), match_channels=2, mining_levels=3)
ALWAYS_RUN = {"n11", "n12", "n13", "n21", "n22", "n31"}
OVERFITTING_STEPS = 220
TRAINING_EXITS = {"to_rain_middle", "to_rain_top", "half_to_rain", "quarter_to_rain"}


def build(config: HcnConfig = TINY, seed: int = 0) -> Hcn:
    torch.manual_seed(seed)
    return Hcn(config)


def picture(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def psnr(derained: Tensor, clean: Tensor) -> float:
    return -10 * math.log10(F.mse_loss(derained, clean).item())


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.fixture(scope="module")
def published() -> Hcn:
    return build(HcnConfig()).eval()


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks of queries and several bands of rows even in a tiny picture."""
    monkeypatch.setattr(hcn, "BLOCK_SIMILARITIES", 300)
    monkeypatch.setattr(hcn, "BAND_PIXELS", 50)


class TestPublishedSize:
    def test_parameters_are_the_papers_two_point_zero_four_million(self, published: Hcn) -> None:
        assert count_parameters(published) == 2_040_451

    def test_parameters_without_the_heads_of_the_constraints(self) -> None:
        assert count_parameters(Hcn(HcnConfig(mscc=False))) == 2_037_685

    def count_multiply_adds(self, side: int) -> dict[str, int]:
        # Fake tensors have shapes but no values: the count costs no arithmetic.
        with FakeTensorMode(), torch.no_grad(), FlopCounterMode(display=False) as counter:
            Hcn()(torch.zeros(1, 3, side, side))
        return {str(op): flops // 2 for op, flops in counter.get_flop_counts()["Global"].items()}

    @pytest.mark.slow
    def test_multiply_adds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # In one piece: as many multiply-adds, but fewer operations to count.
        monkeypatch.setattr(hcn, "BLOCK_SIMILARITIES", 2**40)
        monkeypatch.setattr(hcn, "BAND_PIXELS", 2**40)
        counts = self.count_multiply_adds(256)
        assert counts == {"aten.convolution": 101_903_208_960, "aten.bmm": 37_739_520_000}
        # A training crop: 28 GMAC. Convolutions grow with the pixels, mining with their square.
        crop = {"aten.convolution": counts["aten.convolution"] // 4}
        crop["aten.bmm"] = counts["aten.bmm"] // 16
        assert self.count_multiply_adds(128) == crop
        assert sum(crop.values()) == pytest.approx(28e9, rel=0.02)


class TestWiring:
    """Fig. 2: who feeds whom."""

    def run_recorded(self, model: Hcn, **options: bool) -> tuple[dict, dict]:
        inputs: dict[str, list[tuple[Tensor, ...]]] = {}
        results: dict[str, list[Tensor]] = {}

        def remember(name: str):
            def hook(_: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
                inputs.setdefault(name, []).append(given)
                results.setdefault(name, []).append(result)

            return hook

        for name, child in model.named_children():
            child.register_forward_hook(remember(name))
        model(picture(1, 3, 16, 16), **options)
        return inputs, results

    def test_each_module_reads_what_the_figure_draws(self) -> None:
        inputs, results = self.run_recorded(build())
        sources = {
            "n11": ("stem_bottom",),
            "into_21": ("n11", "stem_middle"),
            "into_31": ("n21", "stem_top"),
            "into_12": ("n21", "n11"),
            "into_22": ("n31", "n21"),
            "into_13": ("n22", "n12"),
            "n21": ("into_21",),
            "n31": ("into_31",),
            "n12": ("into_12",),
            "n22": ("into_22",),
            "n13": ("into_13",),
            "to_rain_bottom": ("n13",),
        }
        for name, expected in sources.items():
            for given, source in zip(inputs[name][0], expected, strict=True):
                assert given is results[source][0], (name, source)

    def test_inference_runs_each_module_once_and_no_training_exit(self) -> None:
        inputs, _ = self.run_recorded(build().eval())
        assert inputs.keys() >= ALWAYS_RUN
        assert all(len(calls) == 1 for calls in inputs.values())
        assert not inputs.keys() & (TRAINING_EXITS | {"stem_half", "stem_quarter"})

    def test_training_exits_hang_on_the_modules_the_paper_constrains(self) -> None:
        inputs, results = self.run_recorded(build(), all_outputs=True)
        exits = {
            "to_rain_middle": ("n22", 0),
            "to_rain_top": ("n31", 0),
            "half_to_rain": ("n12", 1),
            "quarter_to_rain": ("n11", 2),
        }
        assert set(exits) == TRAINING_EXITS
        for name, (source, call) in exits.items():
            assert inputs[name][0][0] is results[source][call], name

    def test_decoder_units_add_the_mirrored_encoder_block(self) -> None:
        torch.manual_seed(0)
        stack = DenseStack(4, 2)
        x, first, second = (picture(1, 4, 6, 5, seed=seed) for seed in (1, 2, 3))
        result, blocks = stack(x, [first, second])

        one = stack.blocks[0](x + first)
        middle = F.leaky_relu(stack.gathers[0].conv(torch.cat((x, one), 1)), 0.2)
        two = stack.blocks[1](middle + second)
        last = F.leaky_relu(stack.gathers[1].conv(torch.cat((x, one, two), 1)), 0.2)
        torch.testing.assert_close(result, last)
        torch.testing.assert_close(blocks, [one, two])

    def test_encoder_hands_its_blocks_to_the_decoder_in_reverse(self) -> None:
        torch.manual_seed(0)
        module = EncoderDecoder(TINY)
        handed: list[tuple[Tensor, ...]] = []
        made: list[list[Tensor]] = []
        module.encoder[0].register_forward_hook(lambda _m, _i, result: made.append(result[1]))
        module.decoder[-1].register_forward_hook(lambda _m, given, _r: handed.append(given))
        module(picture(1, 8, 16, 16))
        assert [id(x) for x in handed[0][1]] == [id(x) for x in reversed(made[0])]


def mine_slowly(mining: Mining, own: Tensor, other: Tensor) -> Tensor:
    """Eq. 4 place by place: no unfold, no matrix product, no softmax."""
    queries = F.pad(mining.query(own)[0], (1, 1, 1, 1))
    matches = []
    for scale in (own, other):
        keys, values = (F.pad(f(scale)[0], (1, 1, 1, 1)) for f in (mining.key, mining.value))
        for u in range(scale.shape[2]):
            for v in range(scale.shape[3]):
                key = keys[:, u : u + 3, v : v + 3]
                length = max(float((key**2).sum().detach()) ** 0.5, 1e-4)
                matches.append((key / length, values[:, u : u + 3, v : v + 3]))
    canvas = torch.zeros_like(F.pad(own[0], (1, 1, 1, 1)))
    for i in range(own.shape[2]):
        for j in range(own.shape[3]):
            query = queries[:, i : i + 3, j : j + 3]
            phi = [math.exp(10 * float((query * key).sum().detach())) for key, _ in matches]
            sigma = sum(phi)
            y = sum(weight * value for weight, (_, value) in zip(phi, matches, strict=True)) / sigma
            canvas[:, i : i + 3, j : j + 3] += y
    return own + canvas[None, :, 1:-1, 1:-1] / 4


class TestMining:
    @pytest.fixture
    def mining(self) -> Mining:
        torch.manual_seed(3)
        return Mining(20, 5).double()

    @pytest.mark.parametrize("other_size", [(2, 2), (8, 10), (1, 1)])
    @pytest.mark.parametrize("gradients", [True, False], ids=["fused", "blocks"])
    def test_equals_eq_4(
        self, mining: Mining, small_pieces: None, other_size: tuple[int, int], gradients: bool
    ) -> None:
        own = 3 * picture(1, 20, 4, 5).double() - 1
        other = 3 * picture(1, 20, *other_size, seed=2).double() - 1
        with torch.set_grad_enabled(gradients):
            mined = mining(own, other)
        assert mined.requires_grad == gradients
        torch.testing.assert_close(mined, mine_slowly(mining, own, other), rtol=1e-9, atol=1e-9)

    def test_pictures_of_a_batch_do_not_see_each_other(self, mining: Mining) -> None:
        own, other = picture(2, 20, 4, 4).double(), picture(2, 20, 2, 2).double()
        with torch.no_grad():
            together = mining(own, other)
            alone = torch.cat([mining(own[i : i + 1], other[i : i + 1]) for i in range(2)])
        torch.testing.assert_close(together, alone)

    def test_gradient_is_that_of_the_formula(self) -> None:
        torch.manual_seed(0)
        mining = Mining(4, 2).double()
        own = picture(1, 4, 3, 3).double().requires_grad_()
        other = picture(1, 4, 2, 2).double().requires_grad_()
        assert torch.autograd.gradcheck(mining, (own, other))

    def test_keys_of_zeros_are_no_division_by_zero(self, mining: Mining) -> None:
        for layer in (mining.query, mining.key, mining.value):
            nn.init.zeros_(layer[0].bias)
        own = torch.zeros(1, 20, 4, 4, dtype=torch.float64, requires_grad=True)
        mining(own, own[..., :2, :2]).sum().backward()
        assert own.grad is not None
        assert own.grad.isfinite().all()

    def test_both_passes_use_every_scale(self) -> None:
        """Fig. 3: the result depends on each direction's mining and on each of its convolutions."""
        torch.manual_seed(0)
        module = SimilarityMining(8, 2, 3)
        module(picture(1, 8, 8, 8)).square().sum().backward()
        assert all(p.grad is not None and p.grad.any() for p in module.parameters())

    def test_one_module_per_direction_serves_all_its_steps(self) -> None:
        module = SimilarityMining(8, 2, 4)
        steps = {"down2up": [], "up2down": []}
        for name, sizes in steps.items():
            getattr(module, name).register_forward_hook(
                lambda _m, given, _r, sizes=sizes: sizes.append([x.shape[-1] for x in given])
            )
        module(picture(1, 8, 8, 16))
        assert steps == {
            "down2up": [[4, 2], [8, 4], [16, 8]],
            "up2down": [[8, 16], [4, 8], [2, 4]],
        }


class TestPositionCode:
    def test_no_two_places_share_a_code(self) -> None:
        codes = position_code(20, 12, 17).flatten(1)
        distances = torch.cdist(codes.T, codes.T) + 9 * torch.eye(12 * 17)
        assert distances.min() > 0.1

    def test_rows_take_the_first_half_and_columns_the_second(self) -> None:
        code = position_code(20, 6, 7)
        assert torch.equal(code[:10, :, :1].expand(-1, -1, 7), code[:10])
        assert torch.equal(code[10:, :1].expand(-1, 6, -1), code[10:])

    def test_the_slowest_wave(self) -> None:
        frequency = 10000 ** (-4 * 4 / 20)
        expected = torch.tensor([5 * frequency]).sin()
        torch.testing.assert_close(position_code(20, 1, 6)[18, 0, 5:], expected)


class TestPyramid:
    @pytest.mark.parametrize("pyramid", PYRAMIDS)
    def test_constrained_results_differ_from_their_pyramid_level_by_rain(
        self, pyramid: str
    ) -> None:
        config = dataclasses.replace(TINY, pyramid=pyramid)
        model, rainy = build(config).eval(), picture(1, 3, 32, 24)
        for exit_ in (model.half_to_rain, model.quarter_to_rain):
            nn.init.zeros_(exit_.weight)
            nn.init.constant_(exit_.bias, 0.25)
        outputs = model(rainy, all_outputs=True)
        _, half, quarter = PYRAMIDS[pyramid](rainy, 2)
        torch.testing.assert_close(outputs.derained_half, half - 0.25)
        torch.testing.assert_close(outputs.derained_quarter, quarter - 0.25)

    def test_unknown_name(self) -> None:
        with pytest.raises(
            ValueError, match=r"unknown pyramid 'laplace'\. Did you mean 'laplacian"
        ):
            HcnConfig(pyramid="laplace")


class TestConfig:
    def test_padding_multiple_is_the_bottlenecks(self) -> None:
        assert HcnConfig().padding_multiple == 32
        assert TINY.padding_multiple == 8

    def test_lists_from_json_equal_tuples(self) -> None:
        assert HcnConfig(blocks=[12, 2, 1]) == HcnConfig()  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"channels": 18}, "channels must be a multiple of 4, not 18"),
            ({"channels": 0}, "not 0"),
            ({"blocks": ()}, "at least one block per scale"),
            ({"blocks": (3, 0)}, r"not \(3, 0\)"),
            ({"mining_levels": 1}, "mining_levels at least 2"),
            ({"match_channels": 0}, "at least 1"),
        ],
    )
    def test_impossible_shapes_are_refused(self, fields: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            HcnConfig(**fields)


class TestOutputs:
    @pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 7), (31, 32)])
    def test_any_size(self, published: Hcn, size: tuple[int, int]) -> None:
        with torch.no_grad():
            derained = published(picture(1, 3, *size))
        assert derained.shape == (1, 3, *size)
        assert derained.isfinite().all()

    @pytest.mark.parametrize("size", [(5, 5), (19, 37), (40, 64)])
    def test_all_outputs_have_their_sizes(self, size: tuple[int, int]) -> None:
        height, width = size
        outputs = build()(picture(2, 3, *size), all_outputs=True)
        assert isinstance(outputs, HcnOutputs)
        full, half = (2, 3, height, width), (2, 3, -(-height // 2), -(-width // 2))
        quarter = (2, 3, -(-height // 4), -(-width // 4))
        assert [tuple(x.shape) for x in outputs] == [full, full, full, half, quarter]

    def test_the_first_output_is_the_derained_picture(self) -> None:
        model, rainy = build().eval(), picture(1, 3, 19, 21)
        with torch.no_grad():
            assert torch.equal(model(rainy), model(rainy, all_outputs=True).derained)

    def test_without_the_constraints_their_outputs_are_none(self) -> None:
        outputs = build(dataclasses.replace(TINY, mscc=False))(
            picture(1, 3, 8, 8), all_outputs=True
        )
        assert (outputs.derained_half, outputs.derained_quarter) == (None, None)

    def test_padding_is_a_mirror_that_is_cut_away(self) -> None:
        model, rainy = build().eval(), picture(1, 3, 13, 16)
        mirrored = torch.cat((rainy, rainy[:, :, -4:-1].flip(2)), dim=2)
        with torch.no_grad():
            torch.testing.assert_close(model(rainy), model(mirrored)[:, :, :13])

    def test_far_pixels_matter_so_tiles_only_approximate(self) -> None:
        model, rainy = build().eval(), picture(1, 3, 256, 16)
        changed = rainy.clone()
        changed[:, :, :8] = 0
        with torch.no_grad():
            # 2 x 5 3x3 convolutions a scale reach far less than 240 pixels; the mining does not.
            assert not torch.equal(model(rainy)[:, :, -8:], model(changed)[:, :, -8:])


class TestTrainsAndRuns:
    def test_every_parameter_of_the_published_network_gets_a_gradient(self) -> None:
        # The slope of a PReLU that meets no negative value has gradient 0: some seeds have such.
        model = build(HcnConfig(), seed=2).train()
        outputs = model(picture(1, 3, 32, 32), all_outputs=True)
        sum(output.square().mean() for output in outputs).backward()
        silent = [
            name
            for name, p in model.named_parameters()
            if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()
        ]
        assert silent == []

    def test_n13_trains_on_the_result_alone(self) -> None:
        model, rainy = build().train(), picture(1, 3, 16, 16)
        before = {name: p.detach().clone() for name, p in model.n13.named_parameters()}
        optimizer = torch.optim.SGD(model.n13.parameters(), lr=0.1)
        first = model(rainy)
        first.square().mean().backward()
        optimizer.step()
        for name, p in model.n13.named_parameters():
            # The slope of a PReLU that meets no negative value stays.
            assert p.numel() == 1 or not torch.equal(before[name], p), name
        assert model(rainy).square().mean() < first.square().mean()

    def test_small_pieces_change_nothing(self, small_pieces: None) -> None:
        """With gradients the attention is fused and maps are joined whole; without, by pieces."""
        model, rainy = build().eval(), picture(2, 3, 40, 24)
        whole = model(rainy)
        with torch.no_grad():
            pieces = model(rainy)
        torch.testing.assert_close(pieces, whole, rtol=1e-5, atol=1e-6)

    def test_deterministic(self) -> None:
        model, rainy = build().eval(), picture(1, 3, 33, 47)
        with torch.inference_mode():
            assert torch.equal(model(rainy), model(rainy))

    def test_channels_last(self) -> None:
        model, rainy = build().eval(), picture(1, 3, 24, 32)
        with torch.inference_mode():
            expected = model(rainy)
            model = model.to(memory_format=torch.channels_last)
            derained = model(rainy.to(memory_format=torch.channels_last))
        torch.testing.assert_close(derained, expected, rtol=1e-5, atol=1e-6)

    @pytest.mark.slow
    @pytest.mark.parametrize("gradients", [True, False], ids=["fused", "blocks"])
    def test_bfloat16(self, published: Hcn, gradients: bool) -> None:
        rainy = picture(1, 3, 16, 24)  # processors without bf16 take seconds for more
        with torch.set_grad_enabled(gradients):
            exact = published(rainy)
            with torch.autocast("cpu", torch.bfloat16):
                derained = published(rainy)
        assert derained.isfinite().all()
        assert (derained - exact).abs().max() < 0.02

    @pytest.mark.slow
    def test_exports_without_gradients(self) -> None:
        """Another path than with them, which `test_models` exports."""
        smallest = HcnConfig(channels=4, blocks=(1,), match_channels=1, mining_levels=2)
        model, rainy = build(smallest).eval(), picture(1, 3, 7, 8)
        with torch.inference_mode():
            program = torch.export.export(model, (rainy,))
            torch.testing.assert_close(program.module()(rainy), model(rainy), rtol=1e-5, atol=1e-6)

    @pytest.mark.slow
    def test_overfits_one_pair_to_35_db(self) -> None:
        torch.manual_seed(0)
        clean = F.interpolate(picture(1, 3, 5, 5), size=(32, 32), mode="bicubic").clamp(0, 1)
        streaks = (picture(1, 1, 8, 32, seed=2) > 0.9).float().repeat_interleave(4, dim=2)
        rainy = (clean + 0.5 * streaks).clamp(0, 1)
        model = Hcn()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in range(OVERFITTING_STEPS):
            outputs = model(rainy, all_outputs=True)
            loss = sum(F.mse_loss(derained, clean) for derained in outputs[:3])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert psnr(rainy, clean) < 20
        with torch.no_grad():
            assert psnr(model(rainy), clean) > 35

    @pytest.mark.slow
    def test_a_photograph_runs_whole_within_a_gibibyte(self) -> None:
        script = (
            "import resource, torch\n"
            "from derain_cli.models.hcn import Hcn\n"
            "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "bare = peak()\n"
            "model = Hcn().eval().to(memory_format=torch.channels_last)\n"
            "with torch.inference_mode(): model(torch.rand(1, 3, 321, 481))\n"
            "print((peak() - bare) // 1024)\n"
        )
        run = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        assert int(run.stdout) < 1024
