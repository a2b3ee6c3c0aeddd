"""Parameter groups and their rates, and the average of the weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from signstreams.backbones.weights import load_dinov2_backbone
from signstreams.integrate.model import MultistreamModel
from signstreams.integrate.mska import MaskedBatchNorm
from signstreams.integrate.settings import IntegrateConfig
from signstreams.integrate.training import WeightAverage, make_optimizer

from .models import DIM, decoder_of, model_of

Build = Callable[..., IntegrateConfig]


def test_every_trainable_parameter_is_in_one_group_with_its_own_rate(tiny_config: Build) -> None:
    config = tiny_config(optim={"lr": 1.0, "lr_mska": 2.0, "lr_decoder": 3.0, "weight_decay": 0.5})
    model = model_of(config)
    optimizer = make_optimizer(config, model)
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    rates = {group["name"]: group["peak_lr"] for group in optimizer.param_groups}
    assert rates == {"encoder": 1.0, "mska": 2.0, "decoder": 3.0}
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        if name.endswith(("global_matrix", "alpha", "bias", "missing", "shared.weight")):
            assert decay[id(parameter)] == 0, name
    assert decay[id(model.fusion.fuse[1].weight)] == 0.5


def test_groups_without_a_rate_of_their_own_take_the_common_one_and_backbones_a_tenth(
    tiny_config: Build, backbone_specs: dict[str, str]
) -> None:
    config = tiny_config(optim={"lr": 1.0, "lr_encoder": 0.5}, model={"freeze_hand_left_backbone": False})
    backbone = load_dinov2_backbone(backbone_specs["hand_left_backbone"])
    dims = {"face": DIM, "hand_l": backbone.embed_dim, "hand_r": DIM, "pose": 21}
    model = MultistreamModel(
        config, feature_dims=dims, backbones={"hand_l": backbone}, num_glosses=5, decoder=decoder_of(config)
    )
    groups = make_optimizer(config, model).param_groups
    rates = {group["name"]: group["lr"] for group in groups}
    assert rates == {"encoder": 0.5, "mska": 1.0, "decoder": 1.0, "backbone": 0.1}
    assert all(group["peak_lr"] == group["lr"] for group in groups)
    optim = config.optim.model_copy(update={"lr_backbone": 0.3})
    own = make_optimizer(config.model_copy(update={"optim": optim}), model)
    assert {group["lr"] for group in own.param_groups if group["name"] == "backbone"} == {0.3}


def test_adam_adds_the_decay_to_the_gradients_and_adamw_does_not(tiny_config: Build) -> None:
    """Against the formulas (Kingma and Ba 2015; Loshchilov and Hutter 2019), for the first two steps of one weight."""
    beta1, beta2, lr, decay, eps = 0.9, 0.998, 0.1, 0.5, 1e-8
    for kind in ("adam", "adamw"):
        optim = {"optimizer": kind, "betas": [beta1, beta2], "lr": lr, "weight_decay": decay}
        model = model_of(tiny_config(optim=optim))
        optimizer = make_optimizer(tiny_config(optim=optim), model)
        weight = model.fusion.fuse[1].weight
        expected = weight.detach().double().clone()
        mean = square = torch.zeros_like(expected)
        for step, gradient in enumerate((0.3, -0.7), start=1):
            weight.grad = torch.full_like(weight, gradient)
            used = gradient + (decay * expected if kind == "adam" else 0.0) * torch.ones_like(expected)
            if kind == "adamw":
                expected = expected * (1 - lr * decay)
            mean, square = beta1 * mean + (1 - beta1) * used, beta2 * square + (1 - beta2) * used**2
            expected = expected - lr * (mean / (1 - beta1**step)) / ((square / (1 - beta2**step)).sqrt() + eps)
            optimizer.step()
        torch.testing.assert_close(weight.detach().double(), expected, atol=1e-6, rtol=1e-5, msg=kind)
    assert type(make_optimizer(tiny_config(), model_of(tiny_config()))) is torch.optim.AdamW  # as before


def test_sgd_has_nesterovs_momentum_and_adds_the_decay_to_the_gradients(tiny_config: Build) -> None:
    momentum, lr, decay = 0.8, 0.1, 0.5
    config = tiny_config(optim={"optimizer": "sgd", "betas": [momentum, 0.9], "lr": lr, "weight_decay": decay})
    model = model_of(config)
    optimizer = make_optimizer(config, model)
    weight = model.fusion.fuse[1].weight
    expected, mean = weight.detach().clone(), torch.zeros_like(weight)
    for gradient in (0.3, -0.7):
        weight.grad = torch.full_like(weight, gradient)
        used = gradient + decay * expected
        mean = momentum * mean + used
        expected = expected - lr * (used + momentum * mean)
        optimizer.step()
    torch.testing.assert_close(weight.detach(), expected)


def test_what_is_frozen_is_in_no_group(tiny_config: Build) -> None:
    config = tiny_config()
    model = model_of(config)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith("mska."))
    groups = make_optimizer(config, model).param_groups
    assert {group["name"] for group in groups} == {"encoder", "decoder"}


def _moved(model: nn.Module, seed: int) -> None:
    """As if by a step of an optimiser."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=rng))


@pytest.mark.parametrize("decay", [0.3, 0.9])
def test_the_average_is_that_of_the_formula(decay: float) -> None:
    model = nn.Linear(3, 2)
    _moved(model, 0)
    average, expected = WeightAverage(model, decay), model.weight.detach().clone()
    for step in range(30):
        _moved(model, step + 1)
        average.update()
        now = min(decay, (1 + step) / (10 + step))
        expected = now * expected + (1 - now) * model.weight.detach()
    with average.in_place():
        torch.testing.assert_close(model.weight.detach(), expected, rtol=0, atol=1e-5)


def test_statistics_of_batch_norm_are_averaged_with_the_weights() -> None:
    norm = MaskedBatchNorm(2)
    model = nn.Sequential(norm)
    average, expected = WeightAverage(model, 0.9), torch.zeros(2)
    for step in range(4):
        norm.train()(torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(step)) + 5)
        average.update()
        now = min(0.9, (1 + step) / (10 + step))
        expected = now * expected + (1 - now) * norm.running_mean
    live = norm.running_mean.clone()
    with average.in_place():
        torch.testing.assert_close(norm.running_mean, expected)
        assert not torch.allclose(norm.running_mean, live)
    assert torch.equal(norm.running_mean, live)
    late = WeightAverage(model, 0.9)
    late.load_state_dict(average.state_dict())
    assert "average.0.running_var" in average.state_dict()
    torch.testing.assert_close(late.state_dict(), average.state_dict())


def test_the_models_own_weights_come_back_also_after_an_error() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2).requires_grad_(False))
    average = WeightAverage(model, 0.9)
    _moved(model, 1)
    average.update()
    own = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(RuntimeError), average.in_place():
        assert not torch.equal(model[0].weight, own["0.weight"])
        assert torch.equal(model[1].weight, own["1.weight"])  # frozen: nothing to average
        raise RuntimeError
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())


def test_an_average_goes_on_from_its_state_and_from_no_other_models() -> None:
    straight, late = nn.Linear(3, 2), nn.Linear(3, 2)
    _moved(straight, 0)
    first = WeightAverage(straight, 0.9)
    for step in range(4):
        _moved(straight, step + 1)
        first.update()
        if step == 1:
            state = {name: torch.as_tensor(value).clone() for name, value in first.state_dict().items()}
            second = WeightAverage(late, 0.9)
            second.load_state_dict({**state, "num_updates": int(state["num_updates"])})
        if step > 1:
            late.load_state_dict(straight.state_dict())
            second.update()
    for name, value in first.state_dict().items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(second.state_dict()[name])), name
    with pytest.raises(KeyError):
        WeightAverage(nn.Sequential(nn.Linear(3, 2)), 0.9).load_state_dict(first.state_dict())
