"""The memory plan for people: a table for each stage, and the flags that follow from it."""

from rich.console import Console
from rich.table import Table

from reverie.pipelines.memory_plan import FREE, Fit, StagePlan

COLUMNS = (
    *("state", "layers", "attention", "weights", "grads", "optim.", "other"),
    *("kept", "peak", "fit", "micro"),
)


def heading(name: str, devices: int, memory: float) -> str:
    """What is planned, and what is left free."""
    return (
        f"{name} on {devices} x {memory / 1e9:.1f} GB, of which {FREE:.0%} are left free. State in GB a device: sharded (fsdp) "
        f"or copied (ddp). Layers: kept, or recomputed (--training.checkpointing layers). Attention: with its soft cap in plain "
        f"matrix code, or fused without. Kept, peak: MB a frame after the forward pass and at the worst moment. Fit: windows a "
        f"device takes at once. Micro: --batches.accumulate. *: as in the preset."
    )


def print_stage(console: Console, plan: StagePlan) -> None:
    """The table of one stage and one line of advice."""
    console.print(f"{plan.stage}: {plan.rows} windows of {plan.length} frames a device and step")
    table = Table(padding=(0, 0, 0, 0) if console.width < 100 else (0, 1))
    for i, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if i < 3 else "right", no_wrap=i < 3, overflow="fold")
    for fit in plan.fits:
        table.add_row(*_cells(fit, fit == plan.chosen))
    console.print(table)
    console.print(advice(plan))


def advice(plan: StagePlan) -> str:
    """What to add to the command, in flags."""
    fit = plan.chosen
    if fit.accumulate is not None:
        return " ".join([f"{plan.stage}: fits", *(f"with {flag}" for flag in accumulation(fit))])
    other = [f for f in plan.fits if f.accumulate is not None and f.way.softcap == fit.way.softcap]
    if not other:
        return f"{plan.stage}: does not fit; give smaller windows, a smaller model or larger devices"
    return f"{plan.stage}: does not fit so, but with {flags(min(other, key=_effort))}"


def flags(fit: Fit) -> str:
    """The flags of one way to train."""
    parts = ["--fabric.strategy fsdp"] * fit.way.sharded
    parts += ["--training.checkpointing layers"] * fit.way.checkpointing
    return " ".join([*parts, *accumulation(fit)])


def accumulation(fit: Fit) -> list[str]:
    """The flag for several micro-batches; none for one."""
    return [f"--batches.accumulate {fit.accumulate}"] if (fit.accumulate or 1) > 1 else []


def _effort(fit: Fit) -> tuple[bool, bool, int]:
    """Sharding costs least, recomputing a third more time, many micro-batches their overhead."""
    return fit.way.checkpointing, fit.way.sharded, fit.accumulate or 0


def _cells(fit: Fit, chosen: bool) -> list[str]:
    way = fit.way
    return [
        f"{'*' if chosen else ' '} {'sharded' if way.sharded else 'copied'}",
        "recomputed" if way.checkpointing else "kept",
        "soft cap" if way.softcap else "fused",
        *(f"{x / 1e9:.2f}" for x in (fit.weights, fit.gradients, fit.optimizer, fit.fixed)),
        *(f"{x / 1e6:,.1f}" for x in (fit.kept, fit.peak)),
        f"{fit.rows:,}",
        "-" if fit.accumulate is None else f"{fit.accumulate}",
    ]
