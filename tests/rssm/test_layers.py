"""Fast forms of layers against their plain definitions."""

import pytest
import torch
import torch.nn.functional as F

from reverie.rssm.frames import Padded, Resized
from reverie.rssm.images import (
    PoolingEncoder,
    StridedDecoder,
    StridedEncoder,
    UpsamplingConv,
    UpsamplingDecoder,
    interleave,
)
from reverie.rssm.layers import elu_mlp
from reverie.rssm.norm import EPSILON, NormSiLU
from reverie.rssm.scan import StepLinear, merge_blocks, split_blocks
from reverie.rssm.state import State


def test_norm_and_silu_equal_the_plain_form():
    torch.manual_seed(0)
    layer = NormSiLU(7)
    with torch.no_grad():
        layer.gain.uniform_(0.5, 2)
    x, grad = torch.randn(3, 4, 7, requires_grad=True), torch.randn(3, 4, 7)
    plain = F.silu(F.rms_norm(x, (7,), layer.gain, EPSILON))
    torch.testing.assert_close(layer(x), plain)
    got = torch.autograd.grad(layer(x), (x, layer.gain), grad)
    expected = torch.autograd.grad(plain, (x, layer.gain), grad)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("blocks", [1, 2])
def test_step_layers_gather_the_gradients_of_all_steps(blocks):
    torch.manual_seed(0)
    weight = torch.randn(*((6, 6) if blocks == 1 else (2, 3, 3)), dtype=torch.float64, requires_grad=True)
    bias = torch.randn(6, dtype=torch.float64, requires_grad=True)
    dense = weight if blocks == 1 else torch.block_diag(*weight)
    start = torch.randn(4, 6, dtype=torch.float64)

    def total(step):
        x, seen = start, []
        for _ in range(5):
            x = torch.tanh(step(x))
            seen.append(x)
        return torch.stack(seen[:-1]).square().sum()  # nothing comes back to the last step

    for _ in range(2):
        layer = StepLinear(weight, bias if blocks == 1 else bias.unflatten(0, (2, 1, 3)))
        step = layer if blocks == 1 else lambda x, layer=layer: merge_blocks(layer(split_blocks(x, 2)))
        got = torch.autograd.grad(total(step), (weight, bias))
        expected = torch.autograd.grad(total(lambda x: x @ dense + bias), (weight, bias))
        torch.testing.assert_close(got, expected)


def test_step_layers_of_frozen_weights_pass_gradients_on():
    weight = torch.randn(3, 3)
    x = torch.randn(2, 3, requires_grad=True)
    StepLinear(weight)(x).sum().backward()
    torch.testing.assert_close(x.grad, weight.sum(1).expand(2, -1))


def test_the_upsampling_convolution_equals_doubling_and_convolving():
    torch.manual_seed(0)
    x, conv = torch.randn(2, 5, 3, 4, requires_grad=True), UpsamplingConv(4, 6, 5, padding=2)
    doubled = F.interpolate(x.permute(0, 3, 1, 2), scale_factor=2, mode="nearest")
    expected = F.conv2d(doubled, conv.weight, conv.bias, padding=2).permute(0, 2, 3, 1)
    got, grad = interleave(conv(x)), torch.randn(2, 10, 6, 6)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    inputs = (x, conv.weight, conv.bias)
    torch.testing.assert_close(
        torch.autograd.grad(got, inputs, grad),
        torch.autograd.grad(expected, inputs, grad),
        atol=1e-4,
        rtol=1e-4,
    )


def test_blocks_of_h_make_channel_groups():
    torch.manual_seed(0)
    decoder = UpsamplingDecoder(deter=16, stoch=4, units=4, channels=3, depth=4, size=(32, 16))
    state = State(torch.zeros(1, 16), torch.zeros(1, 4))
    moved = State(state.deter.clone(), state.stoch)
    moved.deter[0, 4:6] = 1.0  # block 2 of 8

    seen: list[torch.Tensor] = []
    decoder.norm_in.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    assert decoder(None, state).shape == (1, 3, 32, 16)
    decoder(None, moved)
    changed = (seen[0] != seen[1]).any(0).any(0).any(0)  # over rows, columns
    assert changed.nonzero().flatten().tolist() == [4, 5]  # 16 channels, 2 a block


def test_the_pooling_encoder_pools_before_it_normalises():
    torch.manual_seed(0)
    encoder = PoolingEncoder(3, 2, (16, 32))
    images = torch.rand(2, 3, 16, 32)
    x = images - 0.5
    for conv, norm in zip(encoder.convs, encoder.norms, strict=True):
        x = F.max_pool2d(F.conv2d(x, conv.weight, conv.bias, padding=2), 2).permute(0, 2, 3, 1)
        x = F.silu(F.rms_norm(x, x.shape[-1:], norm.gain, EPSILON)).permute(0, 3, 1, 2)
    torch.testing.assert_close(encoder(images), x.permute(0, 2, 3, 1).flatten(1))
    assert encoder(images).shape == (2, encoder.size)


def keras_norm(x, layer):
    """Over the last axis, with Keras' epsilon."""
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, correction=0, keepdim=True)
    return (x - mean) / (variance + 1e-3).sqrt() * layer.weight + layer.bias


def drawn(module):
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module


def test_v2_norms_every_hidden_layer_before_its_activation():
    """Convolutions over channels, the outputs of heads and decoder not at all."""
    torch.manual_seed(0)
    convs = drawn(StridedEncoder(3, 2, torch.nn.ELU, norm=True))
    x = images = torch.rand(2, 3, 64, 64)
    x = x - 0.5
    for conv, norm, _ in zip(*[iter(convs.layers)] * 3, strict=True):
        x = F.conv2d(x, conv.weight, conv.bias, stride=2)
        x = F.elu(keras_norm(x.permute(0, 2, 3, 1), norm)).permute(0, 3, 1, 2)
    torch.testing.assert_close(convs(images), x.flatten(1), atol=1e-5, rtol=1e-4)

    decoder, feature = drawn(StridedDecoder(5, 3, 2, torch.nn.ELU, norm=True)), torch.randn(2, 5)
    x = decoder.inputs(feature)[..., None, None]
    *hidden, last = decoder.layers
    for conv, norm, _ in zip(*[iter(hidden)] * 3, strict=True):
        x = F.conv_transpose2d(x, conv.weight, conv.bias, stride=2)
        x = F.elu(keras_norm(x.permute(0, 2, 3, 1), norm)).permute(0, 3, 1, 2)
    expected = F.conv_transpose2d(x, last.weight, last.bias, stride=2) + 0.5
    torch.testing.assert_close(decoder(feature, None), expected, atol=1e-5, rtol=1e-4)

    head = drawn(elu_mlp(5, 8, 2, 3, norm=True))
    x = feature
    for linear, norm, _ in zip(*[iter(head[:-1])] * 3, strict=True):
        x = F.elu(keras_norm(linear(x), norm))
    torch.testing.assert_close(head(feature), head[-1](x))


def test_padding_keeps_every_pixel():
    frames = torch.randint(0, 256, (2, 40, 72, 3), dtype=torch.uint8)
    fit = Padded((40, 72))
    images = fit.enter(frames)
    assert images.shape == (2, 3, 48, 80) and fit.size == (48, 80)
    torch.testing.assert_close(fit.leave(images), frames.permute(0, 3, 1, 2) / 255)
    torch.testing.assert_close(images[..., 47, :72], images[..., 39, :72])


def test_resizing_to_64_and_back():
    frames = torch.full((1, 40, 96, 3), 51, dtype=torch.uint8)
    fit = Resized((40, 96))
    assert fit.enter(frames).shape == (1, 3, 64, 64)
    torch.testing.assert_close(fit.leave(fit.enter(frames)), torch.full((1, 3, 40, 96), 0.2))
    same = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    torch.testing.assert_close(Resized((64, 64)).enter(same), same.permute(0, 3, 1, 2) / 255)
