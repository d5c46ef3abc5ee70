"""Dreamer 4 in plain torch, as one would write it first from the paper's equations: one file, SDPA, no tricks.

Blocks with separate projections, masks made where they are needed, key-value caches that grow by `cat`. It has no soft cap, which
SDPA cannot do; with `softcap=None` this project computes the same numbers from the same weights (tests/benchmarks).

Legend: B batch, T frames, S tokens a frame, D width, N query heads, G key heads, H head width.
"""

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from benchmarks.loops import CannotRun, Loop, Place
from benchmarks.sizes import Row, Sizes

K_MAX = 64
Cache = list[tuple[Tensor, Tensor] | None]


class Norm(nn.Module):
    """RMSNorm with a gain."""

    def __init__(self, width: int, gain: float = 1.0):
        super().__init__()
        self.gain = nn.Parameter(torch.full((width,), gain))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Rotary embedding of (..., L, H) by (L, H/2): the halves of H are the two coordinates."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], -1)


class Block(nn.Module):
    """Pre-norm attention and pre-norm SwiGLU."""

    def __init__(self, width: int, heads: int, kv_heads: int):
        super().__init__()
        h, hidden = width // heads, -(-int(width * 8 / 3) // 8) * 8
        self.heads, self.kv_heads = heads, kv_heads
        self.norm_1, self.norm_2 = Norm(width), Norm(width)
        self.q = nn.Linear(width, heads * h, bias=False)
        self.k = nn.Linear(width, kv_heads * h, bias=False)
        self.v = nn.Linear(width, kv_heads * h, bias=False)
        self.out = nn.Linear(heads * h, width, bias=False)
        self.q_norm, self.k_norm = Norm(h, 2.0), Norm(h, 2.0)
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(
        self, x: Tensor, mask: Tensor | None, angles: Tensor | None, past: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(B, L, D) -> the same, and keys and values, those of the past included."""
        y = self.norm_1(x)
        q = self.q_norm(rearrange(self.q(y), "b l (n h) -> b n l h", n=self.heads))
        k = self.k_norm(rearrange(self.k(y), "b l (n h) -> b n l h", n=self.kv_heads))
        v = rearrange(self.v(y), "b l (n h) -> b n l h", n=self.kv_heads)
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        times = self.heads // self.kv_heads
        seen = F.scaled_dot_product_attention(
            q, k.repeat_interleave(times, 1), v.repeat_interleave(times, 1), attn_mask=mask
        )
        x = x + self.out(rearrange(seen, "b n l h -> b l (n h)"))
        y = self.norm_2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y)), (k, v)


class SpaceTime(nn.Module):
    """Blocks over space, every fourth over time."""

    def __init__(self, width: int, depth: int, heads: int, kv_heads: int, context: int):
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, kv_heads) for _ in range(depth))
        self.norm, self.context, self.head_width = Norm(width), context, width // heads

    def forward(
        self,
        x: Tensor,
        space_mask: Tensor | None,
        space_angles: Tensor | None = None,
        alone: Tensor | None = None,
        cache: Cache | None = None,
        first: int = 0,
    ) -> Tensor:
        """(B, T, S, D) -> the same. Rows where `alone` (B,) is True do not look back. `cache` holds what is past, for T = 1."""
        b, t, s, _ = x.shape
        frames = torch.arange(first, first + t, device=x.device)
        frequencies = 10000 ** (-torch.arange(self.head_width // 2, device=x.device) / (self.head_width // 2))
        angles, mask = frames[:, None] * frequencies, None
        if cache is None:
            distance = frames[:, None] - frames[None]
            mask = (distance >= 0) & (distance < self.context)
            if alone is not None:
                mask = mask & (~alone[:, None, None] | (distance == 0))
                mask = repeat(mask, "b q k -> (b s) 1 q k", s=s)
        for i, block in enumerate(self.blocks):
            if (i + 1) % 4:
                x = block(rearrange(x, "b t s d -> (b t) s d"), space_mask, space_angles)[0]
                x = rearrange(x, "(b t) s d -> b t s d", b=b)
                continue
            past = None if cache is None else cache[i]
            x, seen = block(rearrange(x, "b t s d -> (b s) t d"), mask, angles, past)
            x = rearrange(x, "(b s) t d -> b t s d", b=b)
            if cache is not None:
                cache[i] = seen
        return self.norm(x)

    def new_cache(self) -> Cache:
        """Nothing is past."""
        return [None] * len(self.blocks)

    def kept(self, cache: Cache) -> Cache:
        """The newest frames, so many that the next one sees `context` of them, itself included."""
        newest = self.context - 1
        return [None if x is None else (x[0][:, :, -newest:], x[1][:, :, -newest:]) for x in cache]


def axial_angles(side: int, width: int) -> Tensor:
    """Of a square grid: half of the pairs turn with y, half with x."""
    y, x = (g.flatten() for g in torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"))
    f = 100 ** (-torch.arange(width // 4) / (width // 4))
    return torch.cat([y[:, None] * f, x[:, None] * f], -1)


class Tokenizer(nn.Module):
    """Masked autoencoder; encoder tokens are [latents, patches], decoder tokens [latents, queries]."""

    space_angles: Tensor

    def __init__(self, sizes: Sizes, context: int):
        super().__init__()
        d, n, self.p = sizes.width, sizes.latents, sizes.patch_size
        side = sizes.frame_size // self.p
        make = lambda: SpaceTime(d, sizes.tokenizer_depth, sizes.num_heads, sizes.num_heads, context)  # noqa: E731
        self.encoder, self.decoder, self.n = make(), make(), n
        self.patch_in = nn.Linear(3 * self.p**2, d, bias=False)
        self.latent_out = nn.Linear(d, sizes.channels, bias=False)
        self.latent_in = nn.Linear(sizes.channels, d, bias=False)
        self.patch_out = nn.Linear(d, 3 * self.p**2, bias=False)
        learned = lambda *shape: nn.Parameter(torch.randn(*shape) * 0.5)  # noqa: E731
        self.mask_token, self.latent_tokens, self.latent_positions = learned(d), learned(n, d), learned(n, d)
        self.patch_positions, self.patch_queries = learned(side**2, d), learned(side**2, d)
        head = d // sizes.num_heads
        angles = torch.cat([torch.zeros(n, head // 2), axial_angles(side, head)])
        self.register_buffer("space_angles", angles)

    def encode(self, frames: Tensor, mask_probability: Tensor | None) -> Tensor:
        """(B, T, C, H, W) in [0, 1] -> (B, T, N_z, D_z)."""
        x = rearrange(frames, "b t c (h p) (w q) -> b t (h w) (c p q)", p=self.p, q=self.p)
        x = self.patch_in((x - 0.5) * 4)
        if mask_probability is not None:
            hidden = torch.rand(x.shape[:3], device=x.device) < mask_probability[..., None]
            x = torch.where(hidden[..., None], self.mask_token, x)
        latents = self.latent_tokens.expand(*x.shape[:2], -1, -1)
        x = torch.cat([latents, x + self.patch_positions], 2)
        latent = torch.arange(x.shape[2], device=x.device) < self.n
        x = self.encoder(x, latent[:, None] | ~latent[None], self.space_angles)
        z = self.latent_out(x[:, :, : self.n])
        return torch.tanh(z * (z.square().mean(-1, keepdim=True) + 1e-6).rsqrt())

    def decode(self, latents: Tensor, cache: Cache | None = None, first: int = 0) -> Tensor:
        """The other way round."""
        queries = self.patch_queries.expand(*latents.shape[:2], -1, -1)
        x = torch.cat([self.latent_in(latents) + self.latent_positions, queries], 2)
        latent = torch.arange(x.shape[2], device=x.device) < self.n
        x = self.decoder(x, ~latent[:, None] | latent[None], self.space_angles, cache=cache, first=first)
        x, side = self.patch_out(x[:, :, self.n :]) + 0.5, int(self.patch_queries.shape[0] ** 0.5)
        return rearrange(x, "b t (h w) (c p q) -> b t c (h p) (w q)", h=side, p=self.p, q=self.p)

    def loss(self, frames: Tensor) -> Tensor:
        """Mean squared error with up to 0.9 of the patches hidden, (B, T, H, W, C) uint8."""
        x = rearrange(frames, "b t h w c -> b t c h w").float() / 255
        p = 0.9 * torch.rand(x.shape[:2], device=x.device)
        return F.mse_loss(self.decode(self.encode(x, p)), x)


class Dynamics(nn.Module):
    """Predicts clean latents from corrupted ones (Eq. 7); tokens are [action, (tau, d), latents, registers]."""

    def __init__(self, sizes: Sizes, context: int):
        super().__init__()
        d = sizes.width
        self.net = SpaceTime(d, sizes.dynamics_depth, sizes.num_heads, sizes.num_kv_heads, context)
        small = lambda *shape: nn.Parameter(torch.randn(*shape) * 0.02)  # noqa: E731
        self.no_action, self.actions = small(1, d), small(sizes.actions, d)
        self.signal, self.step = small(K_MAX + 1, d // 2), small(7, d // 2)
        self.latent_in = nn.Linear(sizes.channels, d, bias=False)
        self.latent_out = nn.Linear(d, sizes.channels, bias=False)
        self.positions, self.registers = (
            nn.Parameter(torch.randn(sizes.latents, d) * 0.5),
            small(sizes.num_registers, d),
        )

    def forward(
        self, z: Tensor, signal: Tensor, step: Tensor, action: Tensor, known: Tensor, **others: object
    ) -> Tensor:
        """z (B, T, N_z, D_z), signal and step (B, T) indices, action (B, T) and whether it is known -> z_hat."""
        acted = self.no_action + torch.where(known[..., None], self.actions[action], 0.0)[:, :, None]
        level = torch.cat([self.signal[signal], self.step[step]], -1)[:, :, None]
        x = torch.cat(
            [acted, level, self.latent_in(z) + self.positions, self.registers.expand(*z.shape[:2], -1, -1)], 2
        )
        return self.latent_out(self.net(x, None, **others)[:, :, 2 : 2 + z.shape[2]])  # type: ignore[arg-type]

    def loss(self, z: Tensor, action: Tensor) -> Tensor:
        """Shortcut forcing: flow loss at d_min, else self-consistency with two half steps (Eq. 7, 8)."""
        b, t = z.shape[:2]
        alone = torch.rand(b, device=z.device) < 0.3
        known = (~alone)[:, None].expand(b, t)
        step = torch.randint(0, 7, (b, t), device=z.device)
        levels = 2**step
        signal = (torch.rand(b, t, device=z.device) * levels).long() * (K_MAX // levels)
        tau, noise = (signal / K_MAX)[..., None, None], torch.randn_like(z)
        z_tilde = (1 - tau) * noise + tau * z
        finest = step == 6
        with torch.no_grad():
            half = (step + 1).clamp_max(6)
            length = torch.where(finest, 0.0, 0.5**half)[..., None, None]
            b1 = (self(z_tilde, signal, half, action, known, alone=alone) - z_tilde) / (1 - tau)
            z_half = z_tilde + b1 * length
            later = signal + torch.where(finest, 0, K_MAX // 2**half)
            b2 = (self(z_half, later, half, action, known, alone=alone) - z_half) / (1 - tau - length)
            target = z_tilde + (1 - tau) * (b1 + b2) / 2
        z_hat = self(z_tilde, signal, step, action, known, alone=alone)
        target = torch.where(finest[..., None, None], z, target)
        return ((0.9 * tau + 0.1) * (z_hat - target).square()).mean()


class Video:
    """Generates frame by frame: K steps, then one more pass by which the frame becomes past."""

    def __init__(self, dynamics: Dynamics, tokenizer: Tokenizer, past: Tensor, k: int):
        self.dynamics, self.tokenizer, self.k = dynamics, tokenizer, k
        self.cache, self.decoder, self.number = dynamics.net.new_cache(), tokenizer.decoder.new_cache(), 0
        for t in range(past.shape[1]):
            self._remember(past[:, t : t + 1])

    @torch.no_grad()
    def next(self) -> Tensor:
        """The next frame (B, 1, C, H, W)."""
        b, n, d = len(self.last), *self.last.shape[2:]
        z, step = torch.randn(b, 1, n, d, device=self.last.device), self.k.bit_length() - 1
        for i in range(self.k):
            z_hat = self._pass(z, i * (K_MAX // self.k), step, list(self.cache))
            z = z + (z_hat - z) / (1 - i / self.k) / self.k
        return self._remember(z)

    @torch.no_grad()
    def _remember(self, z: Tensor) -> Tensor:
        self.last = z
        self._pass(0.1 * torch.randn_like(z) + 0.9 * z, round(0.9 * K_MAX), 6, self.cache)
        frame = self.tokenizer.decode(z, self.decoder, self.number)
        self.cache = self.dynamics.net.kept(self.cache)
        self.decoder = self.tokenizer.decoder.kept(self.decoder)
        self.number += 1
        return frame

    def _pass(self, z: Tensor, signal: int, step: int, cache: Cache) -> Tensor:
        index = torch.zeros(len(z), 1, dtype=torch.int64, device=z.device)
        known = index == 0
        return self.dynamics(z, index + signal, index + step, index, known, cache=cache, first=self.number)


def open_row(row: Row, sizes: Sizes, place: Place) -> Loop:
    """The loop of a row. Raises `CannotRun` for what is not written here."""
    if row.kind == "generation":
        dynamics = Dynamics(sizes, row.context).to(place.device).eval()
        tokenizer = Tokenizer(sizes, row.context).to(place.device).eval()
        past = torch.rand(row.videos, row.context, sizes.latents, sizes.channels, device=place.device) * 2 - 1
        with place.autocast():
            video = Video(dynamics, tokenizer, past, sizes.sampling_steps)

        def frame() -> None:
            with place.autocast():
                video.next()

        return frame
    b, t, size = sizes.batch, sizes.length, sizes.frame_size
    if row.kind == "tokenizer":
        model: Tokenizer | Dynamics = Tokenizer(sizes, sizes.context).to(place.device)
        inputs = [torch.randint(0, 256, (b, t, size, size, 3), dtype=torch.uint8)]
    elif row.kind == "dynamics":
        model = Dynamics(sizes, sizes.context).to(place.device)
        inputs = [
            torch.rand(b, t, sizes.latents, sizes.channels) * 2 - 1,
            torch.randint(0, sizes.actions, (b, t)),
        ]
    else:
        raise CannotRun(f"has no {row.kind}")
    inputs, optimizer = [x.to(place.device) for x in inputs], torch.optim.AdamW(model.parameters(), 1e-4)

    def step() -> None:
        with place.autocast():
            loss = model.loss(*inputs)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step
