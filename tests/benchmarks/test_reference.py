"""The plain reference computes what this project computes: same weights, same numbers."""

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import ours, reference
from benchmarks.sizes import TINY
from reverie.data.actions import ActionSpace, Categorical
from reverie.dynamics.model import Dynamics
from reverie.nn.frames import to_float
from reverie.nn.transformer import BlockCausalTransformer
from reverie.tokenizer.model import Tokenizer

SPACE = ActionSpace({"action": Categorical(TINY.actions)})


def copy(target: Any, source: Tensor) -> None:
    assert target.shape == source.shape
    target.data.copy_(source.detach())


def take_blocks(plain: reference.SpaceTime, net: BlockCausalTransformer) -> None:
    for block, layer in zip(plain.blocks, net.layers, strict=True):
        heads, groups, h = block.heads, block.kv_heads, plain.head_width
        parts = layer.attention.qkv.weight.split([heads * h, groups * h, groups * h])
        for linear, weight in zip((block.q, block.k, block.v), parts, strict=True):
            copy(linear.weight, weight)
        copy(block.out.weight, layer.attention.out.weight)
        copy(block.q_norm.gain, layer.attention.q_gain)
        copy(block.k_norm.gain, layer.attention.k_gain)
        for linear, weight in zip((block.gate, block.up), layer.mlp.gate_up.weight.chunk(2), strict=True):
            copy(linear.weight, weight)
        copy(block.down.weight, layer.mlp.out.weight)


def both_tokenizers() -> tuple[reference.Tokenizer, Tokenizer]:
    torch.manual_seed(0)
    mine, plain = (
        Tokenizer(ours.tokenizer_config(TINY, softcap=None)),
        reference.Tokenizer(TINY, TINY.context),
    )
    take_blocks(plain.encoder, mine.encoder)
    take_blocks(plain.decoder, mine.decoder)
    for name in ("patch_in", "latent_out", "latent_in", "patch_out"):
        copy(getattr(plain, name).weight, getattr(mine, name).weight)
    for name in ("mask_token", "latent_tokens", "latent_positions", "patch_positions", "patch_queries"):
        copy(getattr(plain, name), getattr(mine, name))
    return plain.eval(), mine.eval()


def both_dynamics() -> tuple[reference.Dynamics, Dynamics]:
    torch.manual_seed(0)
    mine, plain = (
        Dynamics(ours.dynamics_config(TINY, softcap=None), SPACE),
        reference.Dynamics(TINY, TINY.context),
    )
    take_blocks(plain.net, mine.transformer)
    pairs: list[tuple[nn.Parameter, Tensor]] = [
        (plain.no_action, mine.action_embedding.no_action_embedding),
        (plain.actions, mine.action_embedding.tables[0]),
        (plain.signal, mine.signal_embedding),
        (plain.step, mine.step_embedding),
        (plain.latent_in.weight, mine.latent_in.weight),
        (plain.latent_out.weight, mine.latent_out.weight),
        (plain.positions, mine.spatial_positions),
        (plain.registers, mine.registers),
    ]
    for target, source in pairs:
        copy(target, source)
    return plain.eval(), mine.eval()


def test_tokenizers_agree() -> None:
    plain, mine = both_tokenizers()
    frames = torch.randint(0, 256, (2, 6, TINY.frame_size, TINY.frame_size, 3), dtype=torch.uint8)
    with torch.no_grad():
        latents = mine.encode(frames)
        torch.testing.assert_close(plain.encode(to_float(frames), None), latents, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(plain.decode(latents), mine.decode(latents), atol=1e-5, rtol=1e-4)


def test_dynamics_agree_over_a_window_and_for_rows_that_do_not_look_back() -> None:
    plain, mine = both_dynamics()
    b, t = 3, 7
    z, action = torch.randn(b, t, TINY.latents, TINY.channels), torch.randint(0, TINY.actions, (b, t))
    signal, step = torch.randint(0, 64, (b, t)), torch.randint(0, 7, (b, t))
    known, alone = torch.rand(b, t) < 0.5, torch.tensor([False, True, False])
    segment = torch.where(alone[:, None], torch.arange(t), 0)
    with torch.no_grad():
        theirs = plain(z, signal, step, action, known, alone=alone)
        expected = mine(z, signal, step, {"action": action}, known, segment=segment)[0]
    torch.testing.assert_close(theirs, expected, atol=1e-5, rtol=1e-4)


def test_the_growing_cache_sees_what_the_window_sees() -> None:
    plain, _ = both_dynamics()
    t = 9
    z, zeros = torch.randn(2, t, TINY.latents, TINY.channels), torch.zeros(2, t, dtype=torch.int64)
    with torch.no_grad():
        whole = plain(z, zeros + 5, zeros + 6, zeros, zeros == 0)
        cache, parts = plain.net.new_cache(), []
        for i in range(t):
            one = zeros[:, i : i + 1]
            parts.append(plain(z[:, i : i + 1], one + 5, one + 6, one, one == 0, cache=cache, first=i))
            cache = plain.net.kept(cache)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-4)


def test_losses_can_be_learned_from() -> None:
    torch.manual_seed(0)
    tokenizer, dynamics = reference.Tokenizer(TINY, TINY.context), reference.Dynamics(TINY, TINY.context)
    frames = torch.randint(0, 256, (2, 4, TINY.frame_size, TINY.frame_size, 3), dtype=torch.uint8)
    latents, actions = torch.randn(2, 4, TINY.latents, TINY.channels), torch.zeros(2, 4, dtype=torch.int64)
    for model, inputs in ((tokenizer, [frames]), (dynamics, [latents, actions])):
        model.loss(*inputs).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
