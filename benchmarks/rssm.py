"""CPU cost of a training step of the RSSM baselines: world model, actor, critic and optimiser, float32, random data.

    python benchmarks/rssm.py [--presets v3-12m v3-1m] [--repeats 5] [--threads 1] [--parts]

64 x 64 frames, 17 discrete actions, horizon 15. Prints CPU-seconds (robust on a shared machine) and wall seconds: minimum,
median, maximum over the repeats. --parts adds the passes of world model and imagination alone.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from reverie.data.actions import ActionSpace, Categorical
from reverie.data.batch import Batch
from reverie.rssm.imagination import imagine
from reverie.rssm.model import Dreamer, DreamerObjective
from reverie.rssm.optimizers import make_optimizer, set_learning_rates
from reverie.rssm.presets import preset

SPACE = ActionSpace({"action": Categorical(17)})
ROWS = (("v3-12m", 4, 16), ("v3-1m", 16, 64), ("v2-dmc", 4, 16), ("v1", 4, 16))
"""Preset, batch size, length. Goals on one core: 1.6 and 4.0 CPU-seconds for the first two."""


def random_batch(b: int, t: int) -> Batch:
    known = torch.ones(b, t, dtype=torch.bool)
    zeros = torch.zeros(b, t, dtype=torch.int64)
    return Batch(
        frames=torch.randint(0, 256, (b, t, 64, 64, 3), dtype=torch.uint8),
        actions={"action": torch.randint(0, 17, (b, t))},
        action_mask=known,
        reward=torch.randn(b, t),
        reward_mask=known,
        is_first=~known,
        is_last=~known,
        is_terminal=~known,
        task=zeros - 1,
        segment=zeros,
        relevant=~known[:, 0],
        key=[""] * b,
    )


def training_step(model: Dreamer, batch: Batch) -> Callable[[], None]:
    """Forward, backward and update of everything."""
    objective = DreamerObjective(model)
    optimizer = make_optimizer(model, model.config.optimizer)
    step = 0

    def run() -> None:
        nonlocal step
        set_learning_rates(optimizer, model.config.optimizer, step)
        optimizer.zero_grad(set_to_none=True)
        loss, _ = objective(batch)
        loss.backward()
        optimizer.step()
        step += 1

    return run


def parts(model: Dreamer, batch: Batch) -> dict[str, Callable[[], object]]:
    """Passes of which a step consists."""
    states, _ = model.world_model.infer(batch)
    start = states.detach().flatten()

    @torch.no_grad()
    def rollout() -> object:
        return imagine(model.world_model.core, model.behaviour.act, start, model.config.behaviour.horizon)

    return {
        "world model, forward and backward": lambda: model.world_model.loss(batch).loss.backward(),
        "imagination without gradients": rollout,
    }


def measure(name: str, run: Callable[[], object], repeats: int) -> None:
    """Prints one row."""
    run()
    cpu, wall = [], []
    for _ in range(repeats):
        c, w = time.process_time(), time.perf_counter()
        run()
        cpu.append(time.process_time() - c)
        wall.append(time.perf_counter() - w)
    rows = [f"{min(x):7.3f} {statistics.median(x):7.3f} {max(x):7.3f}" for x in (cpu, wall)]
    print(f"{name:44s} {rows[0]} | {rows[1]}", flush=True)


def main() -> None:
    """Runs all rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--presets", nargs="*", default=[name for name, _, _ in ROWS])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--parts", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    print(f"{'':44s} {'CPU-s min, median, max':23s} | wall s min, median, max")
    for name, b, t in ROWS:
        if name not in args.presets:
            continue
        config = preset(name)
        # No burn-in: all frames count.
        config = replace(config, world_model=replace(config.world_model, burn_in=0))
        model, batch = Dreamer(config, (64, 64, 3), SPACE), random_batch(b, t)
        measure(f"{name} training step, B{b} x T{t}", training_step(model, batch), args.repeats)
        if args.parts:
            for part, run in parts(model, batch).items():
                measure(f"  {part}", run, args.repeats)


if __name__ == "__main__":
    main()
