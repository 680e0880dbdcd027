"""Batch norm: statistics of whole images; freezing."""

import pytest
import torch

from derain_cli.errors import TrainingError
from derain_cli.models import build_model
from derain_cli.training.batch_norm import (
    SharedNorm,
    freeze_norms,
    gather_norm_statistics,
    share_norms,
)


@pytest.fixture
def model():
    return build_model("rdmc", {"stages": 1, "widths": [2, 2, 2, 2, 2]}).train()


def test_gathered_statistics_are_the_plain_average_over_images(model):
    images = [torch.rand(1, 3, 32, 48), torch.rand(1, 3, 64, 32)]
    seen = []
    path = model.encoder[0].paths[0]
    path.conv.register_forward_hook(lambda module, given, result: seen.append(result.detach()))
    gather_norm_statistics(model, iter(images))
    expected = torch.stack([result.mean(dim=(0, 2, 3)) for result in seen]).mean(dim=0)
    norm = path.norm.stages[0]
    torch.testing.assert_close(norm.running_mean, expected)
    assert model.training
    assert norm.momentum == 0.1


def test_no_image_is_an_error_unless_there_is_no_batch_norm(model):
    with pytest.raises(TrainingError, match="no images"):
        gather_norm_statistics(model, iter(()))
    gather_norm_statistics(torch.nn.Conv2d(3, 3, 1), iter(()))


def test_frozen_statistics_stay(model):
    norm = model.encoder[0].paths[0].norm.stages[0]
    before = norm.running_mean.clone()
    freeze_norms(model)
    model(torch.rand(2, 3, 32, 32))
    assert torch.equal(norm.running_mean, before)
    assert model.training
    assert norm.weight.requires_grad


def test_one_process_keeps_torchs_own_norms(model):
    share_norms(model)
    assert not any(isinstance(module, SharedNorm) for module in model.modules())


@pytest.mark.parametrize("momentum", [0.1, None])
def test_shared_norm_of_one_process_is_torchs(tmp_path, momentum):
    """Normalised features, gradients and running statistics, in a group of one."""
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        norms = [torch.nn.BatchNorm2d(3, momentum=momentum), SharedNorm(3, momentum=momentum)]
        given = 5 + torch.rand(4, 3, 6, 6)
        results = []
        for norm in norms:
            x = given.clone().requires_grad_()
            y = norm(norm(x))
            (y**3).sum().backward()
            results.append((y, x.grad, norm.weight.grad, norm.running_mean, norm.running_var))
        for plain, shared in zip(*results, strict=True):
            torch.testing.assert_close(shared, plain, rtol=1e-4, atol=1e-4)
    finally:
        torch.distributed.destroy_process_group()
