"""`reverie data info`: what shards hold, from their index and logs alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from reverie.data.actions import Binary, Categorical, Continuous
from reverie.data.files.location import Location
from reverie.data.loading.corpora import Corpora, Share
from reverie.data.shards.checking import all_samples
from reverie.data.shards.index import Sample, ShardIndex
from reverie.data.shards.reader import ShardReader
from reverie.data.shards.steps import Steps
from reverie.data.shards.summary import ComponentTally, SplitSummary, Summary, summarize
from reverie.pipelines.runs.progress import meter


@dataclass(frozen=True, kw_only=True)
class DataInfoConfig:
    """Counts hours, episodes, actions, tasks and what was skipped; decodes no video."""

    path: Location
    """Folder of video or latent shards, or the URL of one, or a file that mixes several; may stand without --path."""


def data_info(config: DataInfoConfig) -> None:
    """Prints tables. Raises `UserError` when an index, a log or a mixture cannot be read."""
    corpora = Corpora.load(config.path)
    console = Console(highlight=False)
    if len(corpora.shares) > 1:
        _print_mixture(console, corpora)
    for share in corpora.shares:
        _print_corpus(console, share.index)


def mixture_table(corpora: Corpora) -> Table:
    """A row per corpus: its share of the rows, what the mixture's file sets, what it holds."""
    table = _table(["corpus", "share", "labelled fraction", "task", "hours", "actions"])
    total = sum(share.weight for share in corpora.shares)
    for share in corpora.shares:
        index, fraction = share.index, share.labelled_fraction
        table.add_row(
            escape(str(index.folder)),
            f"{share.weight / total:.1%}",
            "-" if fraction is None else f"{fraction:g}",
            escape(share.task or "-"),
            f"{sum(sample.n for sample in all_samples(index)) / index.fps / 3600:.3f}",
            _actions_known(corpora, share),
        )
    return table


def _print_mixture(console: Console, corpora: Corpora) -> None:
    console.print(escape(f"mixture of {len(corpora.shares)} corpora: {corpora.place}"))
    console.print(mixture_table(corpora))
    console.print(escape(f"actions: {', '.join(corpora.action_space.components) or 'none'}"))
    console.print(escape(f"tasks: {', '.join(corpora.tasks) or 'none'}"))
    console.print(f"hash: {corpora.hash()}\n")


def _actions_known(corpora: Corpora, share: Share) -> str:
    """Whether actions of this corpus count as known among those of all."""
    if not share.index.action_space.components:
        return "none"
    return "all" if corpora.knows_all_actions(share) else "some, so unknown"


def _print_corpus(console: Console, index: ShardIndex) -> None:
    summary = summarize(_clips(index), index.action_space, len(index.tasks))
    console.print(escape(_headline(index)))
    tables = {"": split_table(index, summary), **action_tables(summary), **task_table(index, summary)}
    tables |= group_table(index)
    for title, table in tables.items():
        console.print(escape(title))
        console.print(table)
    skipped = index.content.get("skipped", [])
    console.print(f"sources: {len(index.content.get('sources', []))} used, {len(skipped)} skipped")
    for entry in skipped:
        console.print(escape(f"  {entry['source']}: {entry['reason']}"))


def split_table(index: ShardIndex, summary: Summary) -> Table:
    """A row per split, and one for all."""
    table = _table(["split", "hours", "frames", "clips", "episodes", "with actions", "frames labelled"])
    for name, split in summary.splits.items():
        table.add_row(name, *_split_cells(index, [split]))
    table.add_row("all", *_split_cells(index, list(summary.splits.values())))
    return table


def action_tables(summary: Summary) -> dict[str, Table]:
    """Title -> how often each class was chosen and each key was down; mean, range and histogram of each number."""
    return {
        f"action {name}, {tally.rows:,} known": _action_table(tally)
        for name, tally in summary.actions.items()
    }


def task_table(index: ShardIndex, summary: Summary) -> dict[str, Table]:
    """Title -> events of each task and episodes with at least one; empty without tasks."""
    if not index.tasks:
        return {}
    table = _table(["task", "events", "episodes with one"])
    for i, task in enumerate(index.tasks):
        splits = summary.splits.values()
        events = sum(int(split.events[i]) for split in splits)
        episodes = sum(len(split.accomplished_in[i]) for split in splits)
        table.add_row(escape(task), f"{events:,}", f"{episodes:,}")
    return {"tasks": table}


def group_table(index: ShardIndex) -> dict[str, Table]:
    """Title -> episodes and hours of each group; empty where groups are not told apart."""
    episodes = [episode for split in index.splits for episode in index.episodes(split)]
    table = _table(["group", "hours", "episodes", "with actions"])
    for group in sorted({episode.group for episode in episodes if episode.group is not None}):
        chosen = [episode for episode in episodes if episode.group == group]
        hours = sum(episode.n for episode in chosen) / index.fps / 3600
        labelled = sum(episode.labelled for episode in chosen)
        table.add_row(escape(group), f"{hours:.3f}", f"{len(chosen):,}", f"{labelled:,}")
    return {"groups": table} if table.rows else {}


def _clips(index: ShardIndex) -> Iterator[tuple[Sample, Steps]]:
    samples, reader = all_samples(index), ShardReader(index)
    try:
        with meter("read logs", len(samples)) as shown:
            for sample in samples:
                yield sample, reader.steps(sample)
                shown.update()
    finally:
        reader.close()


def _headline(index: ShardIndex) -> str:
    height, width = index.frame_size
    kind = "video" if index.latent_shape is None else f"latents {index.latent_shape} of frames"
    return f"{kind} {height} x {width}, {index.fps:g} fps, stored {_quality(index)}: {index.folder}"


def _quality(index: ShardIndex) -> str:
    if "storage_mse" not in index.content:
        return "with unknown loss"
    psnr = index.storage_psnr
    return "bit-exact" if psnr == inf else f"at PSNR {psnr:.1f} dB"


def _split_cells(index: ShardIndex, splits: list[SplitSummary]) -> list[str]:
    frames = sum(split.frames for split in splits)
    known = sum(split.known for split in splits)
    return [
        f"{frames / index.fps / 3600:.3f}",
        f"{frames:,}",
        f"{sum(split.clips for split in splits):,}",
        f"{sum(len(split.episodes) for split in splits):,}",
        f"{sum(len(split.labelled) for split in splits):,}",
        f"{known / frames:.1%}" if frames else "-",
    ]


def _action_table(tally: ComponentTally) -> Table:
    rows = max(tally.rows, 1)
    match tally.component:
        case Categorical():
            table = _table(["class", "count", "share"])
            for label, count in zip(tally.names(), tally.totals, strict=True):
                table.add_row(escape(label), f"{int(count):,}", f"{count / rows:.1%}")
        case Binary():
            table = _table(["key", "down", "rate"])
            for label, count in zip(tally.names(), tally.totals, strict=True):
                table.add_row(escape(label), f"{int(count):,}", f"{count / rows:.1%}")
        case Continuous():
            low, high = tally.component.low, tally.component.high
            table = _table(["number", "mean", "min", "max", f"{low:g} to {high:g}"])
            values = zip(tally.names(), tally.totals / rows, tally.low, tally.high, tally.bins, strict=True)
            for label, *numbers, bins in values:
                cells = [f"{x:+.3f}" if tally.rows else "-" for x in numbers]
                table.add_row(escape(label), *cells, _bars(bins))
    return table


def _bars(counts: np.ndarray) -> str:
    """A histogram in one line: blank for none, else one of eight heights."""
    heights = np.ceil(8 * counts / max(counts.max(), 1)).astype(int)
    return "".join(" ▁▂▃▄▅▆▇█"[height] for height in heights)


def _table(columns: list[str]) -> Table:
    table = Table()
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", overflow="fold")
    return table
