"""Each network against a second, plain writing of its paper's formulas.

The references below share no code with the networks: they read weights by name and apply the
papers' equations one after the other, in float64. A changed sign, order, skip or activation in a
network changes its result and fails here; pinned outputs would only say that something changed.
"""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from derain_cli.models.hcn import EncoderDecoder, Hcn, HcnConfig, SimilarityMining
from derain_cli.models.menet import Menet, MenetConfig
from derain_cli.models.moss import Moss, MossConfig
from derain_cli.models.rdmc import Rdmc, RdmcConfig

State = dict[str, Tensor]


def rainy(*shape: int, seed: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def unsettled(network: nn.Module) -> nn.Module:
    """Weights and batch norms far from any neutral value, so that no step is the identity."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("running_var"):
                value.copy_(0.5 + torch.rand(value.shape, generator=generator))
            elif value.dim() == 1:
                value.copy_(0.4 * torch.randn(value.shape, generator=generator) + 0.1)
    return network.double().eval()


def conv(x: Tensor, state: State, name: str, dilation: int = 1) -> Tensor:
    weight = state[f"{name}.weight"]
    padding = dilation * (weight.shape[-1] // 2)
    return F.conv2d(x, weight, state.get(f"{name}.bias"), padding=padding, dilation=dilation)


def normed(x: Tensor, state: State, name: str, epsilon: float) -> Tensor:
    mean, variance, scale, shift = (
        state[f"{name}.{part}"][None, :, None, None]
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return scale * (x - mean) / (variance + epsilon).sqrt() + shift


def leaky(x: Tensor, slope: float) -> Tensor:
    return torch.where(x > 0, x, slope * x)


# --- MOSS ------------------------------------------------------------------------------------


def moss_block(x: Tensor, state: State, name: str) -> Tensor:
    inner = conv(leaky(conv(x, state, f"{name}.expand"), 0.02), state, f"{name}.reduce")
    shortcut = f"{name}.shortcut"
    return inner + (conv(x, state, shortcut) if f"{shortcut}.weight" in state else x)


def moss_by_the_paper(state: State, image: Tensor, config: MossConfig) -> Tensor:
    """Section 3.1: s(x), z(x), eq. 4-5, g(x), tanh(conv(s - g))."""
    stacks = len(config.widths) - 1
    s = conv(2 * image - 1, state, "head")
    x = s
    for stack in range(stacks):
        halves = stack < config.downsamplings
        for block in range(config.blocks):
            place = block + (1 if halves and block else 0)  # the pooling stands after block 0
            x = moss_block(x, state, f"encoder.{stack}.{place}")
            if halves and block == 0:
                x = F.avg_pool2d(x, 2)
    items = state["memory.items"]
    z = torch.empty_like(x)
    for row in range(x.shape[2]):
        for column in range(x.shape[3]):
            query = x[0, :, row, column]
            cosines = (items @ query) / (items.norm(dim=1) * query.norm())
            weights = (cosines / config.temperature).exp()
            z[0, :, row, column] = (weights[:, None] * items).sum(0) / weights.sum()
    g = z
    for stack in range(stacks):
        doubles = stacks - 1 - stack < config.downsamplings
        if doubles:
            g = F.interpolate(g, scale_factor=2, mode="bilinear", align_corners=False)
        for block in range(config.blocks):
            g = moss_block(g, state, f"decoder.{stack}.{block + doubles}")
    return (torch.tanh(conv(s - g, state, "to_image")) + 1) / 2


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_moss_is_its_section_3_1(temperature: float) -> None:
    torch.manual_seed(0)
    config = MossConfig((4, 6, 8), 2, 1, memory_items=5, temperature=temperature)
    network, image = unsettled(Moss(config)), rainy(1, 3, 8, 12)
    expected = moss_by_the_paper(network.state_dict(), image, config)
    torch.testing.assert_close(network(image), expected, rtol=1e-9, atol=1e-9)


def test_moss_published_shape() -> None:
    """kappa = 4, m = 512, three halvings, and the two decays of section 4.2."""
    config = MossConfig()
    assert (config.blocks, config.memory_items, config.downsamplings) == (4, 512, 3)
    assert (config.memory_decay, config.temperature) == (0.999, 1.0)


# --- MENET -----------------------------------------------------------------------------------


def menet_by_the_paper(state: State, image: Tensor, config: MenetConfig) -> Tensor:
    """Fig. 5 and 6."""

    def layer(x: Tensor, name: str) -> Tensor:
        return normed(conv(x, state, f"{name}.conv"), state, f"{name}.norm", 1e-3)

    half = layer(F.pixel_unshuffle(image, 2), "to_half")
    quarter = layer(F.pixel_unshuffle(half.clamp(min=0), 2), "to_quarter")
    x = quarter.clamp(min=0)
    if config.channel_attention:
        context = x
        for turn in range(2):
            context = layer(F.pixel_unshuffle(context, 2), f"attention.shrink.{turn}").clamp(min=0)
            context = layer(context, f"attention.see.{turn}").clamp(min=0)
        means = layer(context, "attention.weigh").flatten(2).mean(2)
        x = x * (1 + 1 / (1 + (-means).exp()))[..., None, None]
    for block in range(config.residual_blocks):
        inner = layer(x, f"blocks.{block}.first").clamp(min=0)
        x = x + layer(inner, f"blocks.{block}.second")
    x = F.pixel_shuffle(layer(x + quarter, "from_quarter"), 2)
    x = layer(x + half, "from_half")
    return image + F.pixel_shuffle(conv(x, state, "to_residual"), 2)


@pytest.mark.parametrize("attention", [True, False])
def test_menet_is_its_figures_5_and_6(attention: bool) -> None:
    torch.manual_seed(0)
    config = MenetConfig(residual_blocks=2, width=8, channel_attention=attention)
    network, image = unsettled(Menet(config)), rainy(2, 3, 32, 16)
    nn.init.normal_(network.to_residual.weight, std=0.1)
    expected = menet_by_the_paper(network.state_dict(), image, config)
    torch.testing.assert_close(network(image), expected, rtol=1e-9, atol=1e-9)


# --- RDMC ------------------------------------------------------------------------------------


def rdmc_by_the_paper(state: State, image: Tensor, config: RdmcConfig) -> list[Tensor]:
    """Eq. 2-5 and Fig. 2: B^(1) ... B^(T)."""
    results, derained = [], image
    for stage in range(config.stages):
        number = stage if config.norm_per_stage else 0

        def layer(x: Tensor, name: str, dilation: int = 1, number: int = number) -> Tensor:
            x = conv(x, state, f"{name}.conv", dilation)
            return normed(x, state, f"{name}.norm.stages.{number}", 1e-5).clamp(min=0)

        paths = [torch.cat((derained, image), 1)] * len(config.dilations)
        features = []  # F_1 ... F_5
        for level in range(5):
            if level:
                paths = [F.max_pool2d(path, 2) for path in paths]
            paths = [
                layer(path, f"encoder.{level}.paths.{p}", dilation)
                for p, (path, dilation) in enumerate(zip(paths, config.dilations, strict=True))
            ]
            features.append(torch.cat(paths, 1))
        x = None
        for decoder in range(5):
            level = 4 - decoder
            parts = [] if x is None else [up(x, 2)]
            parts.append(features[level])
            for source, target in config.connections:
                if target != decoder + 6:
                    continue
                name, steps = f"connections.{source}_{target}.conv", source - 1 - level
                if steps > 0:
                    parts.append(up(conv(features[source - 1], state, name), 2**steps))
                else:
                    parts.append(conv(F.max_pool2d(features[source - 1], 2**-steps), state, name))
            x = layer(torch.cat(parts, 1), f"decoder.{decoder}")
        derained = image - conv(x, state, "to_rain")
        results.append(derained)
    return results


def up(x: Tensor, factor: int) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


@pytest.mark.parametrize("norm_per_stage", [True, False])
def test_rdmc_is_its_equations_2_to_5(norm_per_stage: bool) -> None:
    torch.manual_seed(0)
    config = RdmcConfig((2, 2, 3, 3, 4), (1, 2, 3), 3, norm_per_stage=norm_per_stage)
    network, image = unsettled(Rdmc(config)), rainy(1, 3, 32, 48)
    expected = rdmc_by_the_paper(network.state_dict(), image, config)
    for found, wanted in zip(network.all_stages(image), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(network(image), expected[-1], rtol=1e-9, atol=1e-9)


# --- HCN -------------------------------------------------------------------------------------


def placed(x: Tensor, state: State, name: str) -> Tensor:
    """Position code of sines and cosines (base 10000), 1x1, 3x3, LeakyReLU 0.2."""
    _, channels, height, width = x.shape
    code = torch.zeros(channels, height, width, dtype=x.dtype)
    half = channels // 2
    for channel in range(half):
        rate = 10000.0 ** (-2 * (channel // 2) / half)
        wave = torch.sin if channel % 2 == 0 else torch.cos
        code[channel] = wave(torch.arange(height) * rate)[:, None].expand(-1, width)
        code[half + channel] = wave(torch.arange(width) * rate)[None].expand(height, -1)
    joined = conv(torch.cat((x, code[None]), 1), state, f"{name}.place")
    return leaky(conv(joined, state, f"{name}.conv.conv"), 0.2)


def mined(own: Tensor, other: Tensor, state: State, name: str) -> Tensor:
    """Eq. 4: keys of unit length, similarities times 10, overlaps divided by 4, plus the input."""

    def projected(x: Tensor, part: str) -> Tensor:
        return leaky(conv(x, state, f"{name}.{part}.0"), state[f"{name}.{part}.1.weight"].item())

    def patches(x: Tensor) -> Tensor:
        return F.unfold(x, 3, padding=1)[0].T

    queries = patches(projected(own, "query"))
    keys = torch.cat([patches(projected(x, "key")) for x in (own, other)])
    values = torch.cat([patches(projected(x, "value")) for x in (own, other)])
    keys = keys / keys.norm(dim=1, keepdim=True).clamp(min=1e-4)
    likeness = (10 * queries @ keys.T).exp()
    answers = likeness @ values / likeness.sum(1, keepdim=True)
    return own + F.fold(answers.T[None], own.shape[-2:], 3, padding=1) / 4


def biscsm_by_the_paper(state: State, x: Tensor, levels: int) -> Tensor:
    """Fig. 3: small to large, then large to small over those results, then six maps joined."""
    scales = [x]
    for _ in range(levels - 1):
        scales.append(F.max_pool2d(scales[-1], 2))
    rising = [placed(scales[-1], state, "down2up_convs.0")]
    for step, scale in enumerate(scales[-2::-1], start=1):
        together = mined(scale, rising[-1], state, "down2up")
        rising.append(placed(together, state, f"down2up_convs.{step}"))
    falling = [placed(rising[-1], state, "up2down_convs.0")]
    for step, scale in enumerate(rising[-2::-1], start=1):
        together = mined(scale, falling[-1], state, "up2down")
        falling.append(placed(together, state, f"up2down_convs.{step}"))
    large = [F.interpolate(scale, size=x.shape[-2:], mode="nearest") for scale in falling[1:]]
    maps = torch.cat((x, rising[-1], falling[0], *large), 1)
    return leaky(conv(maps, state, "fuse_scales.conv"), 0.2)


def test_hcn_mining_is_its_figure_3() -> None:
    torch.manual_seed(0)
    module, x = unsettled(SimilarityMining(8, 3, 3)), rainy(1, 8, 8, 12)
    expected = biscsm_by_the_paper(module.state_dict(), x, 3)
    torch.testing.assert_close(module(x), expected, rtol=1e-8, atol=1e-8)


def hcn_module_by_the_paper(state: State, x: Tensor, blocks: tuple[int, ...], mine) -> Tensor:
    """Fig. 3: dense stacks down, the mining, and up; decoder unit i adds encoder block i."""

    def stack(x: Tensor, name: str, count: int, mirrored: list[Tensor]) -> tuple:
        seen, kept = [x], []
        for unit in range(count):
            start = x + mirrored[unit] if mirrored else x
            inner = leaky(conv(start, state, f"{name}.blocks.{unit}.conv_leaky.conv"), 0.2)
            kept.append(conv(inner, state, f"{name}.blocks.{unit}.conv") + start)
            seen.append(kept[-1])
            x = leaky(conv(torch.cat(seen, 1), state, f"{name}.gathers.{unit}.conv"), 0.2)
        return x, kept

    encoded = []
    for level, count in enumerate(blocks):
        x, kept = stack(F.max_pool2d(x, 2) if level else x, f"encoder.{level}", count, [])
        encoded.append((x, kept))
    x = mine(x)
    for step, count in enumerate(reversed(blocks)):
        same, kept = encoded[-1 - step]
        if step:
            x = torch.cat((F.interpolate(x, scale_factor=2, mode="nearest"), same), 1)
            x = conv(x, state, f"merges.{step - 1}")
        x, _ = stack(x, f"decoder.{step}", count, kept[::-1])
    return x


SMALL_HCN = HcnConfig(channels=4, blocks=(2, 1), match_channels=2, mining_levels=2)


def test_hcn_module_is_its_figure_3() -> None:
    torch.manual_seed(0)
    module, x = unsettled(EncoderDecoder(SMALL_HCN)), rainy(1, 4, 8, 12)
    expected = hcn_module_by_the_paper(module.state_dict(), x, SMALL_HCN.blocks, module.mining)
    torch.testing.assert_close(module(x), expected, rtol=1e-8, atol=1e-8)


def test_hcn_exits_subtract_the_rain_of_their_own_module() -> None:
    """B from N13, M from N22, T from N31; half size from N12, quarter size from N11."""
    torch.manual_seed(0)
    network, image = unsettled(Hcn(SMALL_HCN)), rainy(1, 3, 16, 16)
    state = network.state_dict()

    def leaky_conv(name: str, *features: Tensor) -> Tensor:
        return leaky(conv(torch.cat(features, 1), state, f"{name}.conv"), 0.2)

    n11 = network.n11(leaky_conv("stem_bottom", image))
    n21 = network.n21(leaky_conv("into_21", n11, leaky_conv("stem_middle", image)))
    n31 = network.n31(leaky_conv("into_31", n21, leaky_conv("stem_top", image)))
    n12 = network.n12(leaky_conv("into_12", n21, n11))
    n22 = network.n22(leaky_conv("into_22", n31, n21))
    n13 = network.n13(leaky_conv("into_13", n22, n12))
    outputs = network(image, all_outputs=True)
    exits = {"bottom": n13, "middle": n22, "top": n31}
    for found, (name, features) in zip(outputs[:3], exits.items(), strict=True):
        expected = image - conv(features, state, f"to_rain_{name}")
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


# --- the switches of HCN's ablations ---------------------------------------------------------


def changed(**fields: object) -> Hcn:
    torch.manual_seed(0)
    return Hcn(dataclasses.replace(SMALL_HCN, **fields))


@pytest.mark.parametrize("mining", ["both", "down2up", "up2down", "sum", "conv1x1", "none"])
@pytest.mark.parametrize("position", [True, False])
def test_every_bottleneck_of_table_2_trains(mining: str, position: bool) -> None:
    network = changed(mining=mining, position=position)
    outputs = network(rainy(1, 3, 16, 16).float(), all_outputs=True)
    sum(output.square().mean() for output in outputs if output is not None).backward()
    # The slope of a PReLU that meets no negative value has no gradient.
    assert all(p.grad is not None or p.numel() == 1 for p in network.parameters())
    has_code = any(name.endswith("place.weight") for name, _ in network.named_parameters())
    assert has_code == (position and mining != "none")


def test_a_single_direction_reads_one_top_and_the_small_scales() -> None:
    for mining, other in (("down2up", "up2down"), ("up2down", "down2up")):
        names = [name for name, _ in changed(mining=mining).named_parameters()]
        assert any(f".{mining}." in name for name in names)
        assert not any(other in name for name in names)


def test_sums_look_for_no_likeness() -> None:
    names = [name for name, _ in changed(mining="sum").named_parameters()]
    assert not any("query" in name or "key" in name or "value" in name for name in names)


def test_without_top_the_middle_reads_its_own_first_module() -> None:
    network = changed(use_top=False)
    handed = []
    network.n21.register_forward_hook(lambda _m, _given, result: handed.append(result))
    network.n22.register_forward_hook(lambda _m, given, _result: handed.append(given[0]))
    outputs = network(rainy(1, 3, 16, 16).float(), all_outputs=True)
    assert handed[0] is handed[1]
    assert outputs.derained_top is None
    assert outputs.derained_middle is not None


@pytest.mark.parametrize("chain", [1, 2, 3, 6])
def test_a_chain_runs_its_modules_one_after_another(chain: int) -> None:
    network, image = changed(chain=chain).eval(), rainy(1, 3, 16, 24).float()
    x = network.stem_bottom(image)
    for module in network.chain:
        x = module(x)
    torch.testing.assert_close(network(image), image - network.to_rain_bottom(x))
    outputs = network(image, all_outputs=True)
    assert (outputs.derained_middle, outputs.derained_top) == (None, None)
    assert outputs.derained_half.shape == (1, 3, 8, 12)
    assert len(network.chain) == chain


def test_the_cascade_has_about_the_size_of_the_collaborative_network() -> None:
    """Table 4: "roughly the same number of parameters"."""

    def size(config: HcnConfig) -> int:
        return sum(p.numel() for p in Hcn(config).parameters())

    assert size(HcnConfig(chain=6)) == pytest.approx(size(HcnConfig()), rel=0.03)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"mining": "conv"}, r"unknown mining 'conv'\. Did you mean 'conv1x1'"),
        ({"chain": -1}, "chain must be 0"),
        ({"chain": 3, "use_top": False}, "a chain has no sub-network T"),
    ],
)
def test_impossible_ablations_are_refused(fields: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        dataclasses.replace(SMALL_HCN, **fields)


def test_rdmc_without_multi_scale_paths_keeps_its_size() -> None:
    """Table V: without MFE only the dilations differ."""

    def size(config: RdmcConfig) -> int:
        return sum(p.numel() for p in Rdmc(config).parameters())

    assert size(RdmcConfig(dilations=(1, 1, 1))) == size(RdmcConfig())
