"""Tokenizer: modality masking, causality, streaming, padding."""

import pytest
import torch

from reverie.tokenizer.model import Tokenizer, TokenizerConfig

CONFIG = TokenizerConfig(
    frame_size=(20, 28), width=32, bottleneck_tokens=4, bottleneck_channels=8, context_length=3
)


def make(**kwargs):
    torch.manual_seed(0)
    config = TokenizerConfig(**{**CONFIG.__dict__, **kwargs})
    model = Tokenizer(config).eval()
    return model


def frames(b=2, t=8, seed=0):
    return torch.randint(
        0, 256, (b, t, 20, 28, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


@torch.no_grad()
def test_encode_and_decode_are_causal_bit_for_bit():
    model, x = make(), frames()
    changed = x.clone()
    changed[:, 5] = 255 - changed[:, 5]
    z, z_changed = model.encode(x), model.encode(changed)
    assert torch.equal(z[:, :5], z_changed[:, :5]) and not torch.equal(z[:, 5], z_changed[:, 5])
    out, out_changed = model.decode(z), model.decode(z_changed)
    assert torch.equal(out[:, :5], out_changed[:, :5]) and not torch.equal(out[:, 5], out_changed[:, 5])


@torch.no_grad()
@pytest.mark.parametrize("prefill", [1, 5])
def test_streaming_equals_the_full_pass(prefill):
    model, x = make(), frames(t=11)
    z = model.encode(x)
    recon = model.decode(z)
    encoder, decoder = model.encoder_cache(2), model.decoder_cache(2)
    pieces = [x[:, :prefill], *x[:, prefill:].split(1, dim=1)]
    z_streamed = [model.encode(piece, cache=encoder) for piece in pieces]
    torch.testing.assert_close(torch.cat(z_streamed, 1), z, atol=2e-5, rtol=2e-5)
    streamed = torch.cat([model.decode(piece, cache=decoder) for piece in z_streamed], 1)
    torch.testing.assert_close(streamed, recon, atol=2e-5, rtol=2e-5)


def gradient(output, inputs):
    (g,) = torch.autograd.grad(output.sum(), inputs, allow_unused=True)
    return torch.zeros(()) if g is None else g


def test_encoder_patches_never_see_latents():
    """A later patch token must not depend on the latent tokens at all; latents must depend on patches."""
    model = make()
    n = CONFIG.bottleneck_tokens
    tokens = torch.randn(1, 3, n + CONFIG.num_patches, 32, requires_grad=True)
    out = model._run(model.encoder, tokens, model._encoder_groups(), None, None)
    assert gradient(out[:, :, n:].pow(2), tokens)[:, :, :n].abs().max() == 0
    out = model._run(model.encoder, tokens, model._encoder_groups(), None, None)
    assert gradient(out[:, :, :n].pow(2), tokens)[:, :, n:].abs().max() > 0


def test_decoder_latents_never_see_queries():
    model = make()
    n = CONFIG.bottleneck_tokens
    tokens = torch.randn(1, 3, n + CONFIG.num_patches, 32, requires_grad=True)
    out = model._run(model.decoder, tokens, model._decoder_groups(), None, None)
    assert gradient(out[:, :, :n].pow(2), tokens)[:, :, n:].abs().max() == 0
    out = model._run(model.decoder, tokens, model._decoder_groups(), None, None)
    assert gradient(out[:, :, n:].pow(2), tokens)[:, :, :n].abs().max() > 0


@torch.no_grad()
def test_bottleneck_is_bounded_and_regrouped():
    model = make(latents_per_token=2)
    z = model.encode(frames())
    assert z.shape == (2, 8, *model.config.latent_shape) == (2, 8, 2, 16)
    assert z.abs().max() < 1


@torch.no_grad()
def test_a_fully_masked_frame_hides_its_pixels_from_the_encoder():
    model = make()
    hide = torch.ones(2, 8)
    torch.testing.assert_close(
        model.encode(frames(seed=1), mask_probability=hide),
        model.encode(frames(seed=2), mask_probability=hide),
    )
    torch.manual_seed(0)
    none = model.encode(frames(), mask_probability=torch.zeros(2, 8))
    torch.testing.assert_close(none, model.encode(frames()))


def test_patchify_pads_with_zeros_and_inverts():
    model = make()
    x = torch.rand(2, 3, 3, 20, 28)
    patches = model.patchify(x)
    assert patches.shape == (2, 3, 3 * 4, 3 * 64)
    assert torch.equal(model.unpatchify(patches), x)
    # bottom-right patch: rows 16..19 of 24 and columns 24..27 of 32 are real, the rest is padding
    corner = patches[0, 0, -1].reshape(3, 8, 8)
    assert torch.equal(corner[:, :4, :4], x[0, 0, :, 16:, 24:])
    assert corner[:, 4:].abs().max() == 0 and corner[:, :, 4:].abs().max() == 0


def test_frames_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"\(20, 28\)"):
        make().encode(torch.zeros(1, 1, 28, 20, 3, dtype=torch.uint8))
