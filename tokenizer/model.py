"""The causal tokenizer: frames -> continuous latents in [-1, 1] -> frames (Dreamer 4, section 3.1).

Encoder tokens of a frame are [latent tokens, patches]: latents attend to everything, patches only to patches. Decoder tokens are
[latents, patch queries]: latents attend only to latents, queries to everything. Both halves are causal in time, so that
frames can be encoded and decoded one by one through a cache.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from reverie.nn.attention import axial_angles, init_linear, rope_table
from reverie.nn.cache import Past, RingCache
from reverie.nn.dispatch import Backend, require_possible
from reverie.nn.frames import to_float
from reverie.nn.norm import rms_norm
from reverie.nn.precision import Float32Linear, at_least_float32, in_float32
from reverie.nn.transformer import BlockCausalTransformer, Group, TransformerConfig


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Sizes of the tokenizer. Presets hold sizes that belong together."""

    frame_size: tuple[int, int] = (64, 64)
    """Height and width of frames in pixels; zero-padded to multiples of `patch_size`."""
    channels: int = 3
    """Colour channels."""
    patch_size: int = 8
    """Side of a square patch in pixels."""
    width: int = 128
    """Width of encoder and decoder."""
    encoder_depth: int = 4
    """Encoder layers."""
    decoder_depth: int = 4
    """Decoder layers."""
    num_heads: int = 4
    """Attention heads."""
    num_kv_heads: int = 4
    """Key and value heads."""
    bottleneck_tokens: int = 16
    """Latent tokens per frame N_b."""
    bottleneck_channels: int = 32
    """Channels per latent token D_b after the projection and tanh."""
    latents_per_token: int = 1
    """How many neighbouring latents become one spatial token of the dynamics model (paper: 2, 512 x 16 -> 256 x 32)."""
    time_every: int = 4
    """Every how many layers one attends over time."""
    context_length: int = 16
    """Frames that a frame sees in time layers, itself included."""
    softcap: float | None = 50.0
    """Soft cap of attention logits; null for none."""
    backend: Backend = "auto"
    """Kernels of attention: auto, math, sdpa, flex or flash (docs/attention.md); only auto falls back on others."""

    def __post_init__(self) -> None:
        require_possible(self.backend, self.softcap, needs_float32=True)
        if self.bottleneck_tokens % self.latents_per_token:
            raise ValueError(
                f"latents_per_token {self.latents_per_token} must divide bottleneck_tokens {self.bottleneck_tokens}"
            )
        if min(self.frame_size) < 1 or self.patch_size < 1:
            raise ValueError(
                f"frame_size {self.frame_size} and patch_size {self.patch_size} must be positive"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Patches along height and width."""
        return -(-self.frame_size[0] // self.patch_size), -(-self.frame_size[1] // self.patch_size)

    @property
    def num_patches(self) -> int:
        """Patches in a frame."""
        return self.grid[0] * self.grid[1]

    @property
    def frame_elements(self) -> int:
        """Numbers of one activation for a frame: tokens times width."""
        return (self.num_patches + self.bottleneck_tokens) * self.width

    @property
    def latent_shape(self) -> tuple[int, int]:
        """(N_z, D_z): the representation of one frame as the dynamics model sees it."""
        k = self.latents_per_token
        return self.bottleneck_tokens // k, self.bottleneck_channels * k

    def transformer(self, depth: int) -> TransformerConfig:
        """The transformer of one half."""
        return TransformerConfig(
            width=self.width,
            depth=depth,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            time_every=self.time_every,
            context_length=self.context_length,
            softcap=self.softcap,
            backend=self.backend,
        )


class Tokenizer(nn.Module):
    """Encoder, tanh bottleneck, decoder."""

    space_cos: Tensor
    space_sin: Tensor

    def __init__(self, config: TokenizerConfig):
        super().__init__()
        self.config = config
        pixels = config.channels * config.patch_size**2
        self.encoder = BlockCausalTransformer(config.transformer(config.encoder_depth))
        self.decoder = BlockCausalTransformer(config.transformer(config.decoder_depth))
        self.patch_in = Float32Linear(pixels, config.width, bias=False)
        self.latent_out = Float32Linear(config.width, config.bottleneck_channels, bias=False)
        self.latent_in = Float32Linear(config.bottleneck_channels, config.width, bias=False)
        self.patch_out = Float32Linear(config.width, pixels, bias=False)
        for linear in (self.patch_in, self.latent_out, self.latent_in, self.patch_out):
            init_linear(linear)
        self.mask_token = _learned(config.width)
        self.latent_tokens = _learned(config.bottleneck_tokens, config.width)
        self.patch_positions = _learned(config.num_patches, config.width)
        self.latent_positions = _learned(config.bottleneck_tokens, config.width)
        self.patch_queries = _learned(config.num_patches, config.width)
        cos, sin = rope_table(self._space_angles())
        self.register_buffer("space_cos", cos, persistent=False)
        self.register_buffer("space_sin", sin, persistent=False)

    def encode(
        self,
        frames: Tensor,
        segment: Tensor | None = None,
        cache: RingCache | Past | None = None,
        mask_probability: Tensor | None = None,
    ) -> Tensor:
        """Frames to latents.

        Args:
          frames: (B, T, H, W, C) uint8.
          segment: (B, T) int64, see `Batch`; None for one piece of video.
          cache: from `encoder_cache`, to encode one frame (or a first stretch) at a time; is advanced, but not a `Past` of it.
          mask_probability: (B, T) share of patches to replace by the mask token (training only).

        Returns:
          (B, T, N_z, D_z) float in (-1, 1).

        Raises:
          ValueError: frames of another size than the configuration's.
        """
        # About unit variance: at the size of raw pixels a patch's content drowns in its position embedding.
        patches = self.patch_in((self.patchify(to_float(frames)) - 0.5) * 4)
        if mask_probability is not None:
            hidden = torch.rand(patches.shape[:-1], device=patches.device) < mask_probability[..., None]
            patches = torch.where(hidden[..., None], self.mask_token, patches)
        b, t = patches.shape[:2]
        latents = repeat(self.latent_tokens, "n d -> b t n d", b=b, t=t)
        tokens = torch.cat([latents, patches + self.patch_positions], dim=2)
        read = slice(0, self.config.bottleneck_tokens)
        out = self._run(self.encoder, tokens, self._encoder_groups(), segment, cache, read)
        # Normalised, or tanh saturates early in training, most channels die as constants and no gradient revives them.
        z = torch.tanh(rms_norm(self.latent_out(out)))
        return rearrange(z, "b t (n k) d -> b t n (k d)", k=self.config.latents_per_token)

    def decode(
        self, latents: Tensor, segment: Tensor | None = None, cache: RingCache | Past | None = None
    ) -> Tensor:
        """Latents (B, T, N_z, D_z) to frames (B, T, C, H, W), float, about [0, 1] (not clipped). `cache` as in `encode`."""
        z = rearrange(
            at_least_float32(latents), "b t n (k d) -> b t (n k) d", k=self.config.latents_per_token
        )
        tokens = self.latent_in(z) + self.latent_positions
        queries = repeat(self.patch_queries, "n d -> b t n d", b=z.shape[0], t=z.shape[1])
        tokens = torch.cat([tokens, queries], dim=2)
        read = slice(self.config.bottleneck_tokens, None)
        # Whole in float32: its queries and most pixels are the same in every frame, and so would be what rounding adds to them.
        with in_float32(tokens.device):
            out = self._run(self.decoder, tokens, self._decoder_groups(), segment, cache, read)
        return self.unpatchify(self.patch_out(out) + 0.5)

    def encoder_cache(self, batch_size: int) -> RingCache:
        """An empty cache for streaming `encode`."""
        return self.encoder.new_cache(batch_size, self.mask_token.device)

    def decoder_cache(self, batch_size: int) -> RingCache:
        """An empty cache for streaming `decode`."""
        return self.decoder.new_cache(batch_size, self.mask_token.device)

    def patchify(self, frames: Tensor) -> Tensor:
        """(B, T, C, H, W) -> (B, T, patches, C P P), zero-padded at the bottom and right."""
        if tuple(frames.shape[-2:]) != tuple(self.config.frame_size):
            raise ValueError(
                f"tokenizer is for frames of {self.config.frame_size}, got {tuple(frames.shape[-2:])}"
            )
        (rows, columns), p = self.config.grid, self.config.patch_size
        padded = F.pad(frames, (0, columns * p - frames.shape[-1], 0, rows * p - frames.shape[-2]))
        return rearrange(padded, "b t c (h p) (w q) -> b t (h w) (c p q)", p=p, q=p)

    def unpatchify(self, patches: Tensor) -> Tensor:
        """Inverse of `patchify`; the padding is cut off."""
        (rows, columns), p = self.config.grid, self.config.patch_size
        frames = rearrange(patches, "b t (h w) (c p q) -> b t c (h p) (w q)", h=rows, w=columns, p=p, q=p)
        return frames[..., : self.config.frame_size[0], : self.config.frame_size[1]]

    def _encoder_groups(self) -> list[Group]:
        n = self.config.bottleneck_tokens
        return [(slice(0, n), slice(None)), (slice(n, None), slice(n, None))]

    def _decoder_groups(self) -> list[Group]:
        n = self.config.bottleneck_tokens
        return [(slice(0, n), slice(0, n)), (slice(n, None), slice(None))]

    def _run(
        self,
        transformer: BlockCausalTransformer,
        tokens: Tensor,
        groups: list[Group],
        segment: Tensor | None,
        cache: RingCache | Past | None,
        read: slice = slice(None),
    ) -> Tensor:
        rope = (self.space_cos, self.space_sin)
        out = transformer(tokens, groups, space_rope=rope, segment=segment, cache=cache, read=read)
        if isinstance(cache, RingCache):
            cache.advance(tokens.shape[1])
        return out

    def _space_angles(self) -> Tensor:
        patches = axial_angles(*self.config.grid, self.config.width // self.config.num_heads)
        unrotated = patches.new_zeros(self.config.bottleneck_tokens, patches.shape[1])
        return torch.cat([unrotated, patches])


def _learned(*shape: int) -> nn.Parameter:
    # Never zero: RMSNorm has a huge gradient at zero input. As large as embedded patches, or positions drown in content.
    return nn.Parameter(torch.randn(*shape) * 0.5)
