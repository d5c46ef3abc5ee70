"""CPU cost of the three hot paths at the sizes named in docs/results.md, one thread, float32.

    python benchmarks/speed.py [--repeats 5] [--threads 1] [--bf16]

Prints CPU-seconds (robust on a shared machine) and wall seconds: minimum, median, maximum over the repeats. The generation rows
differ only in how many frames are already past; the last line is the ratio of the longest to the shortest.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from reverie.data.actions import ActionSpace, Categorical
from reverie.data.batch import Batch
from reverie.dynamics.generation import Finished, Step, commit, denoise
from reverie.dynamics.model import Dynamics, DynamicsConfig
from reverie.dynamics.objective import DynamicsObjective, DynamicsObjectiveConfig
from reverie.tokenizer.model import Tokenizer, TokenizerConfig
from reverie.tokenizer.objective import TokenizerObjective, TokenizerObjectiveConfig

B, T = 4, 16
SPACE = ActionSpace({"action": Categorical(17)})
TOKENIZER = TokenizerConfig(
    frame_size=(64, 64),
    patch_size=8,
    width=128,
    encoder_depth=4,
    decoder_depth=4,
    bottleneck_tokens=16,
    bottleneck_channels=32,
)
DYNAMICS = DynamicsConfig(latent_shape=(16, 32), width=128, depth=8, num_registers=4, context_length=16)


def random_batch(with_frames: bool) -> Batch:
    """(4, 16) frames of 64x64 or latents of 16x32 with one categorical action."""
    known = torch.ones(B, T, dtype=torch.bool)
    never, zeros = ~known, torch.zeros(B, T, dtype=torch.int64)
    return Batch(
        frames=torch.randint(0, 256, (B, T, 64, 64, 3), dtype=torch.uint8) if with_frames else None,
        latents=None if with_frames else torch.rand(B, T, 16, 32) * 2 - 1,
        actions={"action": torch.randint(0, 17, (B, T))},
        action_mask=known,
        reward=torch.zeros(B, T),
        reward_mask=known,
        is_first=never,
        is_last=never,
        is_terminal=never,
        task=zeros,
        segment=zeros,
        relevant=never[:, 0],
        key=[""] * B,
    )


def training_step(objective: torch.nn.Module, batch: Batch, bf16: bool) -> Callable[[], None]:
    """Forward, backward and AdamW update."""
    optimizer = torch.optim.AdamW(objective.parameters(), 1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss, _ = objective(batch)
        loss.backward()
        optimizer.step()

    return step


def frame_step(past: int, bf16: bool) -> Callable[[], None]:
    """One generated and decoded frame, K = 4, which becomes past with the next, after `past` frames."""
    dynamics, tokenizer = Dynamics(DYNAMICS, SPACE).eval(), Tokenizer(TOKENIZER).eval()
    cache, decoder = dynamics.new_cache(1), tokenizer.decoder_cache(1)
    step = Step({"action": torch.zeros(1, 1, dtype=torch.int64)}, torch.ones(1, 1, dtype=torch.bool))

    before: Finished | None = None

    @torch.no_grad()
    def generate() -> None:
        nonlocal before
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            z = denoise(dynamics, cache, step, torch.randn(1, 1, 16, 32), 4, before=before)
            before = Finished(z, step, torch.randn_like(z))
            tokenizer.decode(z, cache=decoder)

    with torch.no_grad():
        for _ in range(past):
            z = torch.rand(1, 1, 16, 32)
            commit(dynamics, cache, z, step, torch.randn_like(z))
            tokenizer.decode(z, cache=decoder)
    return generate


def measure(name: str, run: Callable[[], None], repeats: int, inner: int) -> float:
    """Prints one row; returns the median CPU-seconds of one call."""
    run()
    cpu, wall = [], []
    for _ in range(repeats):
        c, w = time.process_time(), time.perf_counter()
        for _ in range(inner):
            run()
        cpu.append((time.process_time() - c) / inner)
        wall.append((time.perf_counter() - w) / inner)
    rows = [f"{min(x):7.3f} {statistics.median(x):7.3f} {max(x):7.3f}" for x in (cpu, wall)]
    print(f"{name:44s} {rows[0]} | {rows[1]}", flush=True)
    return statistics.median(cpu)


def main() -> None:
    """Runs all rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    print(f"{'':44s} {'CPU-s min, median, max':23s} | wall s min, median, max")
    tokenizer = TokenizerObjective(Tokenizer(TOKENIZER), TokenizerObjectiveConfig(lpips_weight=0), None)
    measure(
        "tokenizer training step, B4 x T16, MSE",
        training_step(tokenizer, random_batch(True), args.bf16),
        args.repeats,
        2,
    )
    dynamics = DynamicsObjective(Dynamics(DYNAMICS, SPACE), DynamicsObjectiveConfig())
    step = training_step(dynamics, random_batch(False), args.bf16)
    measure("dynamics training step, B4 x T16, bootstrap", step, args.repeats, 3)
    lengths = (1, 16, 256, 2048)
    medians = [
        measure(f"generated and decoded frame after {n}", frame_step(n, args.bf16), args.repeats, 20)
        for n in lengths
    ]
    print(f"after {lengths[-1]} against after {lengths[1]} past frames: x {medians[-1] / medians[1]:.2f}")


if __name__ == "__main__":
    main()
