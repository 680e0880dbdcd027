"""PReNet: size, contract, reach and recurrence of the progressive network."""

import math

import pytest
import torch
import torch.nn.functional as F

from derain_cli.models.prenet import ConvLstm, PReNet, PReNetConfig


def test_published_size() -> None:
    """Its paper: 168,963 parameters, however many stages share them."""
    assert sum(p.numel() for p in PReNet().parameters()) == 168_963
    assert sum(p.numel() for p in PReNet(PReNetConfig(stages=2)).parameters()) == 168_963


@torch.no_grad()
def test_receptive_radius_is_78() -> None:
    """With positive weights nothing cancels: an impulse changes all it can reach, and no more."""
    network = PReNet(PReNetConfig(channels=1)).double()
    for name, parameter in network.named_parameters():
        parameter.fill_(0.0 if name.endswith("bias") else 0.1)
    rainy = torch.zeros(1, 3, 180, 5, dtype=torch.float64)
    rainy[..., 90, :] = 1.0
    changed = network(rainy).abs().amax(dim=(0, 1, 3)).nonzero().flatten()
    assert changed.tolist() == list(range(90 - 78, 90 + 78 + 1))


@torch.no_grad()
def test_lstm_against_a_hand_calculation() -> None:
    """One pixel, one channel; the centre taps weigh the feature 1 and the old hidden state 2."""
    lstm = ConvLstm(1)
    for parameter in lstm.parameters():
        parameter.zero_()
    for gate in (lstm.input_gate, lstm.forget_gate, lstm.candidate, lstm.output_gate):
        gate.weight[0, :, 1, 1] = torch.tensor([1.0, 2.0])
    one = torch.ones(1, 1, 1, 1)
    hidden, cell = lstm(0.5 * one, 0.25 * one, 0.1 * one)
    # The gates' sum is 0.5 + 2 * 0.25 = 1: sigmoid 0.731059, tanh 0.761594.
    assert cell.item() == pytest.approx(0.731059 * 0.1 + 0.731059 * 0.761594, abs=1e-5)
    assert hidden.item() == pytest.approx(0.731059 * math.tanh(cell.item()), abs=1e-5)


@torch.no_grad()
def test_a_stage_sees_the_last_stages_result_and_memory() -> None:
    torch.manual_seed(0)
    rainy = torch.rand(1, 3, 20, 20)
    once = PReNet(PReNetConfig(channels=4, blocks=1, stages=1))
    twice = PReNet(PReNetConfig(channels=4, blocks=1, stages=2))
    twice.load_state_dict(once.state_dict())
    assert (once(rainy) - twice(rainy)).abs().max() > 1e-4


@pytest.mark.parametrize("field", ["channels", "blocks", "stages"])
def test_impossible_config_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} must be at least 1, not 0"):
        PReNetConfig(**{field: 0})


@pytest.mark.slow
def test_overfits_one_pair() -> None:
    torch.manual_seed(0)
    network = PReNet(PReNetConfig(channels=16, blocks=2, stages=3))
    clean = 0.7 * F.interpolate(torch.rand(1, 3, 4, 4), size=(32, 32), mode="bilinear")
    rainy = clean.clone()
    rainy[..., 2:-2, 1::5] += 0.3
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(400):
        optimizer.zero_grad()
        F.mse_loss(network(rainy), clean).backward()
        optimizer.step()
    assert -10 * F.mse_loss(network(rainy), clean).log10() > 32
