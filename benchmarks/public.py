"""Public packages at the same sizes, as far as their constructors allow: `dreamer4` (lucidrains)."""

from collections.abc import Callable

import torch

from benchmarks.loops import CannotRun, Loop, Place
from benchmarks.sizes import Row, Sizes


def open_row(row: Row, sizes: Sizes, place: Place) -> Loop:
    """The loop of a row. Raises `CannotRun` where the package, or such a row, is missing."""
    try:
        from dreamer4 import DynamicsWorldModel, VideoTokenizer
    except ImportError as error:
        raise CannotRun(f"not installed ({error.name}); pip install 'reverie[benchmark]'") from None
    if row.kind not in ("tokenizer", "dynamics", "generation"):
        raise CannotRun(f"has no {row.kind}")
    tokenizer = VideoTokenizer(
        dim=sizes.width,
        dim_latent=sizes.channels,
        patch_size=sizes.patch_size,
        image_size=sizes.frame_size,
        num_latent_tokens=sizes.latents,
        encoder_depth=sizes.tokenizer_depth,
        decoder_depth=sizes.tokenizer_depth,
        attn_heads=sizes.num_heads,
        attn_dim_head=sizes.width // sizes.num_heads,
        lpips_loss_weight=0.0,
    ).to(place.device)
    b, t, n, d = sizes.batch, sizes.length, sizes.latents, sizes.channels
    if row.kind == "tokenizer":
        video = torch.rand(b, 3, t, sizes.frame_size, sizes.frame_size, device=place.device)
        return _training_step(tokenizer, lambda: tokenizer(video), place)
    dynamics = DynamicsWorldModel(
        dim=sizes.width,
        dim_latent=d,
        video_tokenizer=tokenizer,
        num_latent_tokens=n,
        num_spatial_tokens=n,
        num_register_tokens=sizes.num_registers,
        depth=sizes.dynamics_depth,
        attn_heads=sizes.num_kv_heads,
        attn_kwargs={"query_heads": sizes.num_heads},
        attn_dim_head=sizes.width // sizes.num_heads,
        num_discrete_actions=sizes.actions,
        prob_shortcut_train=1.0,
    ).to(place.device)
    if row.kind == "dynamics":
        latents = torch.rand(b, t, n, d, device=place.device) * 2 - 1
        actions = torch.randint(0, sizes.actions, (b, t, 1), device=place.device)
        fixed = {"latents": latents, "discrete_actions": actions, "add_autoregressive_action_loss": False}
        return _training_step(dynamics, lambda: dynamics(**fixed), place)
    return _frame(dynamics.eval(), row, sizes, place)


def _training_step(model: torch.nn.Module, loss: Callable[[], torch.Tensor], place: Place) -> Loop:
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, 1e-4, fused=True)

    def step() -> None:
        with place.autocast():
            value = loss()
        value.sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _frame(dynamics: torch.nn.Module, row: Row, sizes: Sizes, place: Place) -> Loop:
    """One more frame after `context`, by the package's key-value cache."""
    b, c = row.videos, row.context
    past = torch.rand(b, c, 1, sizes.latents, sizes.channels, device=place.device) * 2 - 1
    actions = torch.zeros(b, c + 2, 1, dtype=torch.int64, device=place.device)

    def generate(frames: int, past: torch.Tensor, cache: object) -> object:
        with torch.no_grad(), place.autocast():
            return dynamics.generate(  # type: ignore[operator]
                frames,
                num_steps=sizes.sampling_steps,
                batch_size=b,
                prompt_latents=past,
                prompt_discrete_actions=actions[:, : past.shape[1]],
                time_cache=cache,
                return_time_cache=True,
                return_decoded_video=cache is not None,
            )

    _, seen = generate(c + 1, past, None)  # type: ignore[misc]
    longer = torch.cat([past, past[:, :1]], 1)
    return lambda: generate(c + 2, longer, seen)
