"""The memory plan for people: a table for each stage, and the flags that follow from it."""

from rich.console import Console
from rich.table import Table

from reverie.pipelines.memory_plan import FREE, Fit, StagePlan

COLUMNS = (
    *("weights are", "activations", "attention", "weights", "gradients", "optimiser", "other"),
    *("kept, MB a frame", "peak, MB a frame", "windows that fit", "accumulate"),
)


def heading(name: str, devices: int, memory: float) -> str:
    """What is planned, and what is left free."""
    return (
        f"{name} on {devices} x {memory / 1e9:.1f} GB, of which {FREE:.0%} are left free; GB of each device. "
        f"Marked *: as the preset has it."
    )


def print_stage(console: Console, plan: StagePlan) -> None:
    """The table of one stage and one line of advice."""
    console.print(f"{plan.stage}: {plan.rows} windows of {plan.length} frames a device and step")
    table = Table()
    for i, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if i < 3 else "right", overflow="fold")
    for fit in plan.fits:
        table.add_row(*_cells(fit, fit == plan.chosen))
    console.print(table)
    console.print(advice(plan))


def advice(plan: StagePlan) -> str:
    """What to add to the command, in flags."""
    fit = plan.chosen
    if fit.accumulate is not None:
        return f"{plan.stage}: fits" + (
            f" with --batches.accumulate {fit.accumulate}" if fit.accumulate > 1 else ""
        )
    other = [f for f in plan.fits if f.accumulate is not None and f.way.softcap == fit.way.softcap]
    if not other:
        return f"{plan.stage}: does not fit; give smaller windows, a smaller model or larger devices"
    return f"{plan.stage}: does not fit so, but with {flags(min(other, key=_effort))}"


def flags(fit: Fit) -> str:
    """The flags of one way to train."""
    parts = ["--fabric.strategy fsdp"] * fit.way.sharded
    parts += ["--training.checkpointing layers"] * fit.way.checkpointing
    return " ".join([*parts, f"--batches.accumulate {fit.accumulate}"])


def _effort(fit: Fit) -> tuple[bool, bool, int]:
    """Sharding costs least, recomputing a third more time, many micro-batches their overhead."""
    return fit.way.checkpointing, fit.way.sharded, fit.accumulate or 0


def _cells(fit: Fit, chosen: bool) -> list[str]:
    way = fit.way
    return [
        f"{'*' if chosen else ' '} {'sharded' if way.sharded else 'copied'}",
        "recomputed a layer" if way.checkpointing else "kept",
        "matrices, soft cap" if way.softcap else "fused, no cap",
        *(f"{x / 1e9:.2f}" for x in (fit.weights, fit.gradients, fit.optimizer, fit.fixed)),
        *(f"{x / 1e6:,.1f}" for x in (fit.kept, fit.peak)),
        f"{fit.rows:,}",
        "-" if fit.accumulate is None else f"{fit.accumulate}",
    ]
