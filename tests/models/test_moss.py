import copy
import dataclasses
import json
import math
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from derain_cli.models.moss import Moss, MossConfig, RainMemory
from tests.children import Child

SMALL = MossConfig(widths=(4, 6, 8), blocks=1, downsamplings=2, memory_items=5)
OPTIONS = {
    "small": SMALL,
    "without memory": dataclasses.replace(SMALL, use_memory=False),
    "without skip connection": dataclasses.replace(SMALL, skip_connection=False),
    "sharper reading": dataclasses.replace(SMALL, temperature=0.1),
}
EVERY_OPTION = pytest.mark.parametrize("config", OPTIONS.values(), ids=OPTIONS.keys())


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def published() -> Moss:
    torch.manual_seed(0)
    return Moss().eval()


def memory_with(
    items: list[list[float]], *, decay: float = 0.9, temperature: float = 1
) -> RainMemory:
    memory = RainMemory(len(items), len(items[0]), decay, temperature)
    memory.items.copy_(torch.tensor(items))
    return memory


# --- the published network -------------------------------------------------------------------


def test_has_the_published_number_of_parameters(published: Moss) -> None:
    assert sum(p.numel() for p in published.parameters()) == 2_778_467
    assert [b.numel() for b in published.buffers()] == [512 * 96]
    assert 512 * 96 == 49_152


def test_multiply_adds_of_a_256_picture() -> None:
    with torch.device("meta"):
        network, rainy = Moss().eval(), torch.empty(1, 3, 256, 256)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(rainy)
    assert counter.get_total_flops() / 2 == pytest.approx(9.73e9, rel=0.02)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 5), (8, 8), (33, 50)])
def test_takes_any_size(published: Moss, size: tuple[int, int]) -> None:
    rainy = torch.rand(2, 3, *size)
    derained = published(rainy)
    assert derained.shape == rainy.shape
    assert derained.isfinite().all()
    assert 0 <= derained.min() <= derained.max() <= 1


def test_no_pixel_sees_farther_than_the_receptive_radius(published: Moss) -> None:
    network, column = copy.deepcopy(published).double(), 600  # a corner of the 8 x 8 grid: worst
    rainy = torch.rand(1, 3, 8, 1200, dtype=torch.float64, requires_grad=True)
    network(rainy)[0, :, 4, column].sum().backward()
    assert rainy.grad is not None
    seen = rainy.grad.abs().sum(dim=(0, 1, 2)).nonzero()
    assert (seen - column).abs().max() == 426  # `receptive_radius` in MODELS


def test_same_picture_same_result_in_eval_and_channels_last(published: Moss) -> None:
    rainy = torch.rand(1, 3, 24, 40)
    derained = published(rainy)
    assert torch.equal(published(rainy), derained)
    last = copy.deepcopy(published).to(memory_format=torch.channels_last)
    torch.testing.assert_close(last(rainy.to(memory_format=torch.channels_last)), derained)


def test_bfloat16_autocast_stays_close_and_gives_back_the_input_type(published: Moss) -> None:
    rainy = torch.rand(1, 3, 24, 40)
    with torch.autocast("cpu", torch.bfloat16):
        derained = published(rainy)
    assert derained.dtype == rainy.dtype
    torch.testing.assert_close(derained, published(rainy), atol=0.02, rtol=0)


# --- every option ----------------------------------------------------------------------------


@EVERY_OPTION
def test_every_parameter_gets_a_gradient_and_the_memory_none(config: MossConfig) -> None:
    network = Moss(config)
    network(torch.rand(2, 3, 13, 18)).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert all(buffer.grad is None and not buffer.requires_grad for buffer in network.buffers())


@EVERY_OPTION
def test_bfloat16_training_step_is_finite(config: MossConfig) -> None:
    network = Moss(config)
    with torch.autocast("cpu", torch.bfloat16):
        loss = network(torch.rand(2, 3, 16, 16)).mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert all(b.dtype == torch.float32 and b.isfinite().all() for b in network.buffers())


@EVERY_OPTION
def test_exports_as_it_runs(config: MossConfig) -> None:
    network, rainy = Moss(config).eval(), torch.rand(1, 3, 13, 18)
    exported = torch.export.export(network, (rainy,)).module()
    torch.testing.assert_close(exported(rainy), network(rainy))


@EVERY_OPTION
def test_config_survives_json(config: MossConfig) -> None:
    assert MossConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_without_memory_the_decoder_reads_the_encoder() -> None:
    network = Moss(OPTIONS["without memory"])
    assert network.memory is None
    assert not list(network.buffers())


def test_skip_connection_carries_the_picture_past_the_rain() -> None:
    """With g(x) = 0 the picture comes from s(x), and without the skip from nothing."""
    rainy, pictures = torch.rand(1, 3, 16, 16), []
    for skip_connection in (True, False):
        network = Moss(dataclasses.replace(SMALL, skip_connection=skip_connection)).eval()
        for parameter in network.decoder.parameters():
            torch.nn.init.zeros_(parameter)
        pictures.append(network(rainy)[0])
        bias = (torch.tanh(network.to_image.bias) + 1) / 2
    assert pictures[0].std(dim=(1, 2)).min() > 0.01
    torch.testing.assert_close(pictures[1], bias[:, None, None].expand(3, 16, 16))


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"temperature": 0.0}, "temperature must be above 0, not 0.0"),
        ({"memory_items": 0}, "memory_items must be above 0, not 0"),
        ({"blocks": -1}, "blocks must be above 0, not -1"),
        ({"memory_decay": 1.5}, "memory_decay must be in 0..1, not 1.5"),
        ({"downsamplings": 6}, "downsamplings must be 0..5 with 6 widths"),
        ({"widths": [16]}, "two widths at least"),
    ],
)
def test_refuses_an_impossible_config(fields: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        MossConfig(**fields)  # type: ignore[arg-type]


# --- the memory: eq. 1-3 ---------------------------------------------------------------------


def test_update_is_equation_3_by_hand() -> None:
    memory = memory_with([[1, 0], [0, 2], [-3, 0]], decay=0.9)
    # Cosines send the first three to item 0 (0.8, 1 and 0.6 + rounding against 0.6, 0, 0.8: the
    # third goes to item 1), whatever their length; nobody resembles item 2.
    queries = torch.tensor([[4.0, 3.0], [2.0, 0.0], [30.0, 40.0]])
    memory.update(queries)
    expected = torch.tensor(
        [
            [0.9 * 1 + 0.1 * (4 + 2) / 2, 0.9 * 0 + 0.1 * (3 + 0) / 2],
            [0.9 * 0 + 0.1 * 30, 0.9 * 2 + 0.1 * 40],
            [-3, 0],
        ]
    )
    torch.testing.assert_close(memory.items, expected)


def test_update_takes_the_queries_of_the_whole_batch() -> None:
    features = torch.randn(3, 4, 5, 6)
    whole, by_hand = RainMemory(7, 4, 0.5, 1.0), RainMemory(7, 4, 0.5, 1.0)
    by_hand.load_state_dict(whole.state_dict())
    whole(features)
    old, groups = by_hand.items.clone(), {}
    for picture, row, column in torch.cartesian_prod(*map(torch.arange, (3, 5, 6))).tolist():
        query = features[picture, :, row, column]
        item = int(F.cosine_similarity(old, query[None], dim=1).argmax())
        groups.setdefault(item, []).append(query)
    for item, queries in groups.items():
        by_hand.items[item] = 0.5 * old[item] + 0.5 * torch.stack(queries).mean(dim=0)
    assert len(groups) > 1
    torch.testing.assert_close(whole.items, by_hand.items)


def test_items_nobody_chose_keep_their_value_to_the_bit() -> None:
    memory = memory_with([[1, 0], [0.3, -0.7], [-1, 0.1]], decay=0.999)
    before = memory.items.clone()
    memory.update(torch.tensor([[5.0, 0.0], [7.0, 1.0]]))
    assert torch.equal(memory.items[1:], before[1:])
    assert not torch.equal(memory.items[0], before[0])


def test_a_query_that_is_not_finite_does_not_spoil_an_item() -> None:
    memory, clean = memory_with([[1, 0], [0, 1]]), memory_with([[1, 0], [0, 1]])
    memory.update(torch.tensor([[math.inf, 0.0], [2.0, 1.0], [math.nan, 3.0]]))
    clean.update(torch.tensor([[2.0, 1.0]]))
    assert torch.equal(memory.items, clean.items)


def test_memory_learns_in_training_only_and_only_if_allowed() -> None:
    network, rainy = Moss(SMALL), torch.rand(2, 3, 16, 16)
    assert network.memory is not None
    before = network.memory.items.clone()
    network.eval()(rainy)
    network.eval()(rainy, update_memory=True)
    network.train()(rainy, update_memory=False)
    assert torch.equal(network.memory.items, before)
    network.train()(rainy)
    assert not torch.equal(network.memory.items, before)


def test_memory_is_updated_before_it_is_read() -> None:
    features = torch.randn(2, 4, 3, 3)
    once, twice = RainMemory(5, 4, 0.5, 1.0), RainMemory(5, 4, 0.5, 1.0)
    twice.load_state_dict(once.state_dict())
    reading = once(features)
    twice(features)
    torch.testing.assert_close(reading, twice.eval()(features))


def test_optimizer_never_moves_the_memory() -> None:
    network, rainy = Moss(SMALL), torch.rand(2, 3, 16, 16)
    assert network.memory is not None
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1, weight_decay=0.1)
    before = copy.deepcopy(network.state_dict())
    network(rainy, update_memory=False).sum().backward()
    optimizer.step()
    after = network.state_dict()
    assert [name for name in after if torch.equal(after[name], before[name])] == ["memory.items"]


def test_two_batches_may_share_one_backward_pass() -> None:
    """The second update writes the items in place: it must not spoil the first one's gradients."""
    network = Moss(SMALL)
    labelled, noisy = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    (network(labelled).sum() + network(noisy).sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_memory_belongs_to_the_checkpoint() -> None:
    network, rainy = Moss(SMALL), torch.rand(1, 3, 16, 16)
    network(rainy)
    loaded = Moss(SMALL)
    loaded.load_state_dict(network.state_dict())
    assert torch.equal(loaded.eval()(rainy), network.eval()(rainy))


# --- the memory: eq. 4-5 ---------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_reading_is_equations_4_and_5_by_hand(temperature: float) -> None:
    memory = memory_with([[1, 0], [0, 2], [-3, 0]], temperature=temperature)
    reading = memory.read(torch.tensor([[30.0, 40.0]]))
    weights = [math.exp(cosine / temperature) for cosine in (0.6, 0.8, -0.6)]
    total = sum(weights)
    expected = torch.tensor([[(weights[0] - 3 * weights[2]) / total, 2 * weights[1] / total]])
    torch.testing.assert_close(reading, expected)


def test_a_low_temperature_reads_the_nearest_item() -> None:
    memory = memory_with([[1, 0], [0, 2], [-3, 0]], temperature=1e-3)
    reading = memory.read(torch.tensor([[3.0, 4.0], [-1.0, 0.5]]))
    torch.testing.assert_close(reading, torch.tensor([[0.0, 2.0], [-3.0, 0.0]]))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_reading_runs_in_the_kernel_that_never_holds_all_weights(
    layout: torch.memory_format,
) -> None:
    """Other kernels take 0.8 GiB for a picture of 12 megapixels; here they would raise."""
    memory = RainMemory(512, 96, 0.999, 1.0).eval()
    features = torch.randn(1, 96, 5, 7).to(memory_format=layout)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        reading = memory(features)
    with sdpa_kernel(SDPBackend.MATH):
        torch.testing.assert_close(reading, memory(features))


def test_reading_gives_gradients_to_the_queries() -> None:
    memory = RainMemory(6, 4, 0.9, 0.5)
    features = torch.randn(1, 4, 2, 2, requires_grad=True)
    memory(features, update=False).square().sum().backward()
    assert features.grad is not None
    assert features.grad.abs().min() > 0


def test_a_picture_of_nothing_has_a_finite_gradient() -> None:
    """Mid-grey is 0 inside, so every query has length 0 and no direction."""
    network = Moss(SMALL)
    network(torch.full((1, 3, 16, 16), 0.5)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


# --- many processes --------------------------------------------------------------------------

ONE_STEP = """
import sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from derain_cli.models.moss import Moss, MossConfig

folder, rank, processes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
dist.init_process_group(
    "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=processes
)
torch.manual_seed(rank)  # different starts: DistributedDataParallel must bring them together
network = DistributedDataParallel(Moss(MossConfig(**torch.load(f"{folder}/config.pt"))))
rainy = torch.load(f"{folder}/rainy.pt").chunk(processes)[rank]
optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
for _ in range(3):
    optimizer.zero_grad()
    network(rainy).square().mean().backward()
    optimizer.step()
torch.save(network.module.state_dict(), f"{folder}/rank{rank}.pt")
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    """Three steps of two gloo processes on half a batch each, and of one on the whole batch."""
    config = dataclasses.replace(SMALL, memory_decay=0.5)
    rainy = torch.rand(4, 3, 16, 16)
    torch.save(dataclasses.asdict(config), tmp_path / "config.pt")
    torch.save(rainy, tmp_path / "rainy.pt")
    workers = [
        Child([sys.executable, "-c", ONE_STEP, str(tmp_path), str(rank), "2"]) for rank in range(2)
    ]
    assert [worker.wait(timeout=300) for worker in workers] == [0, 0]
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)]

    torch.manual_seed(0)  # the start of rank 0
    alone = Moss(config)
    start = copy.deepcopy(alone.state_dict())
    optimizer = torch.optim.SGD(alone.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        alone(rainy).square().mean().backward()
        optimizer.step()
    for name, value in alone.state_dict().items():
        assert torch.equal(ranks[0][name], ranks[1][name]), name
        torch.testing.assert_close(ranks[0][name], value)
        assert not torch.equal(value, start[name]), name


ONE_UPDATE = """
import sys
import torch
import torch.distributed as dist
from derain_cli.models.moss import RainMemory

folder, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
memory = RainMemory(3, 2, 0.5, 1.0).double()
memory.items.copy_(torch.load(f"{folder}/items.pt"))
memory.update(torch.load(f"{folder}/queries.pt")[rank])
torch.save(memory.items, f"{folder}/rank{rank}.pt")
dist.destroy_process_group()
"""


def test_memory_of_two_processes_takes_the_queries_of_both(tmp_path: Path) -> None:
    """Eq. 3 by hand: sums and counts are those of all processes, which end up equal."""
    items = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    queries = [
        torch.tensor([[4.0, 1.0], [1.0, 3.0]], dtype=torch.float64),
        torch.tensor([[2.0, 0.0], [6.0, 1.0], [-1.0, 5.0]], dtype=torch.float64),
    ]
    torch.save(items, tmp_path / "items.pt")
    torch.save(queries, tmp_path / "queries.pt")
    workers = [
        Child([sys.executable, "-c", ONE_UPDATE, str(tmp_path), str(rank)]) for rank in range(2)
    ]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    first = (items[0] + torch.tensor([4.0 + 2 + 6, 1.0 + 0 + 1]) / 3) / 2
    second = (items[1] + torch.tensor([1.0 - 1, 3.0 + 5]) / 2) / 2
    expected = torch.stack((first, second, items[2]))
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"rank{rank}.pt"), expected)


# --- it learns -------------------------------------------------------------------------------


def rainy_and_clean(size: int = 48) -> tuple[Tensor, Tensor]:
    """A smooth picture, and the same behind diagonal streaks (20.4 dB)."""
    generator = torch.Generator().manual_seed(1)
    patches = torch.rand(1, 3, 6, 6, generator=generator)
    clean = F.interpolate(patches, size=(size, size), mode="bicubic").clamp(0, 1)
    drops = (torch.rand(1, 1, size + 8, size + 8, generator=generator) > 0.98).float()
    rain = F.conv2d(drops, torch.eye(9)[None, None] / 3).clamp(0, 1)
    return (clean + 0.6 * rain).clamp(0, 1), clean


@pytest.mark.slow
@pytest.mark.parametrize("use_memory", [True, False])
def test_overfits_one_pair(use_memory: bool) -> None:
    rainy, clean = rainy_and_clean()
    network, steps = Moss(MossConfig(use_memory=use_memory)), 300
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
    for _ in range(steps):
        optimizer.zero_grad()
        F.l1_loss(network(rainy), clean).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        error = F.mse_loss(network.eval()(rainy), clean)
    assert -10 * error.log10() > 35
