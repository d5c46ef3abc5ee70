"""Muon for hidden matrices, AdamW for all else: who gets which, one state, orthogonal updates, torch's Muon as reference."""

import pytest
import torch
from torch import nn

from reverie.dynamics.model import Dynamics, DynamicsConfig
from reverie.pipelines.training.muon import Muon, orthogonalize
from reverie.pipelines.training.optimization import MuonAdamW, OptimizerConfig, make_optimizer
from tests.batches import SPACE

CONFIG = OptimizerConfig(name="muon", lr=0.1, weight_decay=0.0)


def make():
    torch.manual_seed(0)
    model = Dynamics(DynamicsConfig(latent_shape=(4, 8), width=32, depth=4, context_length=4), SPACE)
    optimizer = make_optimizer(model, CONFIG)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    return model, optimizer


def test_every_parameter_belongs_to_one_group_and_is_updated():
    model, optimizer = make()
    assert isinstance(optimizer, MuonAdamW)
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    before = [p.clone() for p in model.parameters()]
    optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    momentum = {id(p) for p, state in optimizer.state.items() if "momentum_buffer" in state}
    adaptive = {id(p) for p, state in optimizer.state.items() if "exp_avg" in state}
    hidden = {id(p) for p in model.transformer.layers.parameters() if p.dim() == 2}
    assert momentum == hidden and adaptive == {id(p) for p in model.parameters()} - hidden


def test_a_matrix_moves_by_a_nearly_orthogonal_update():
    """Muon's point: all singular values of the update are alike, whatever the gradient's."""
    model, optimizer = make()
    weight = model.transformer.layers[0].mlp.out.weight
    weight.grad = torch.outer(torch.ones(weight.shape[0]), torch.ones(weight.shape[1])) * 50 + weight.grad
    before = weight.detach().clone()
    optimizer.step()
    values = torch.linalg.svdvals((weight.detach() - before).float())
    assert values.max() / values.min() < 3 < torch.linalg.svdvals(weight.grad).max() / values.max()


def test_linear_layers_outside_the_transformer_decay_and_nothing_else_does():
    torch.manual_seed(0)
    model = Dynamics(DynamicsConfig(latent_shape=(4, 8), width=32, depth=4, context_length=4), SPACE)
    optimizer = make_optimizer(model, OptimizerConfig(name="muon", lr=0.1, weight_decay=0.5))
    linear = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    assert {id(model.latent_in.weight), id(model.latent_out.weight)} < linear
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.5 if id(parameter) in linear else 0.0)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer.step()
    for name, p in model.named_parameters():
        assert torch.allclose(p, before[name] * (0.95 if id(p) in linear else 1.0)), name


def test_learning_rates_reach_both():
    _, optimizer = make()
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    model_before = [p.clone() for group in optimizer.param_groups for p in group["params"]]
    optimizer.step()
    after = [p for group in optimizer.param_groups for p in group["params"]]
    assert all(torch.equal(a, b) for a, b in zip(model_before, after, strict=True))


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (16, 16)])
def test_orthogonalized_matrices_keep_their_singular_vectors(shape):
    u, _, v = torch.linalg.svd(torch.randn(3, *shape), full_matrices=False)
    x = u * torch.linspace(1, 4, u.shape[-1]) @ v
    spectrum = u.mT @ orthogonalize(x) @ v.mT
    diagonal = spectrum.diagonal(dim1=-2, dim2=-1)
    assert diagonal.min() > 0.6 and diagonal.max() < 1.3
    assert torch.allclose(spectrum, torch.diag_embed(diagonal), atol=0.02)


def test_several_steps_follow_torchs_muon():
    """The reference orthogonalises in bfloat16, hence the tolerance: a fiftieth of the distance travelled."""
    torch.manual_seed(0)
    start = [torch.randn(8, 24), torch.randn(24, 8), torch.randn(8, 24)]
    ours, theirs = ([nn.Parameter(x.clone()) for x in start] for _ in range(2))
    optimizers = [
        Muon(ours, lr=0.01, weight_decay=0.1),
        torch.optim.Muon(theirs, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    ]
    for _ in range(5):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for a, b, x in zip(ours, theirs, start, strict=True):
        assert (a - b).norm() < 0.02 * (b - x).norm()
