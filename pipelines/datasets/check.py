"""`reverie data check`: every byte, clip and log of shards against their index, and repair of the index."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reverie.data.errors import UserError
from reverie.data.files.location import Location
from reverie.data.files.lock import sole_writer
from reverie.data.shards.alignment import Alignment
from reverie.data.shards.checking import Problem, all_samples, check_clip, check_shard
from reverie.data.shards.index import INDEX, Sample, ShardIndex
from reverie.data.shards.reader import ShardReader
from reverie.data.shards.rebuild import BACKUP, completed, declared_header, gather, old_header, replace_index
from reverie.data.shards.store import open_shards
from reverie.pipelines.datasets.lagging import alignment_lines
from reverie.pipelines.runs.progress import meter


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """Checks every byte and every clip of shards; exit code 1 when something is wrong."""

    path: Location
    """Folder of video or latent shards, or the URL of one; may stand without --path."""
    repair: bool = False
    """Make index.json anew from the shards, without damaged clips; the old one becomes index.json.bak."""
    actions: Path | None = None
    """The source's actions.json or recording.json, for repair where index.json and its copy are gone."""


def check(config: CheckConfig) -> None:
    """Prints what is wrong, and how actions fit the pictures. Raises `UserError` when something is wrong."""
    if config.repair:
        _repair(config)
        return
    index = ShardIndex.read(config.path)
    samples = all_samples(index)
    alignment = Alignment(index.action_space, sum(s.n for s in samples if s.labelled))
    problems = [Problem(INDEX, text) for text in index.problems] + _check_shards(index)
    intact = _intact(index, samples, problems, alignment)
    print(f"{len(intact)} of {len(samples)} clips are intact, in {len(index.content['shards'])} shards")
    print("\n".join(alignment_lines(alignment.evidence())))
    if problems:
        _list(problems)
        raise UserError(
            f"{config.path}: {_count(problems)}; `reverie data check --repair` makes an index without damaged clips."
        )


def _check_shards(index: ShardIndex) -> list[Problem]:
    problems: list[Problem] = []
    samples: dict[str, list[Sample]] = defaultdict(list)
    shards = open_shards(index.folder, index.content["shards"])
    for sample in all_samples(index):
        samples[sample.shard].append(sample)
    with meter("shards", len(index.content["shards"])) as shown:
        for record in index.content["shards"]:
            problems += check_shard(shards, record, samples[record["name"]])
            shown.update()
    return problems


def _intact(
    index: ShardIndex, samples: Sequence[Sample], problems: list[Problem], alignment: Alignment | None
) -> list[Sample]:
    """The clips that are as the index says; the others go to `problems`."""
    reader, intact = ShardReader(index), []
    try:
        with meter("clips", len(samples)) as shown:
            for sample in samples:
                try:
                    frames, steps = check_clip(reader, sample)
                    if alignment is not None and sample.labelled and alignment.wants(sample.n):
                        alignment.add(frames, steps)
                    intact.append(sample)
                except UserError as error:
                    problems.append(Problem(*_place_and_text(sample, error)))
                shown.update()
    finally:
        reader.close()
    return intact


def _place_and_text(sample: Sample, error: UserError) -> tuple[str, str]:
    place = f"{sample.shard}: {sample.key}"
    return place, str(error).removeprefix(f"{place}: ")


def _repair(config: CheckConfig) -> None:
    folder = config.path
    if not isinstance(folder, Path):
        raise UserError(
            f"{folder}: cannot be repaired from here; repair the folder where it lies and copy it again."
        )
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder of the shards to repair.")
    with sole_writer(folder):
        _rebuild(folder, config)


def _rebuild(folder: Path, config: CheckConfig) -> None:
    problems: list[Problem] = []
    gathered = gather(folder, problems)
    header = old_header(folder) or declared_header(folder, gathered, config.actions)
    samples = [Sample.from_json(entry) for entry in gathered.content["samples"]]
    candidate = ShardIndex(
        folder, {**header, "shards": gathered.content["shards"], "splits": [], "samples": []}
    )
    problems_before = len(problems)
    intact = _intact(candidate, samples, problems, None)
    if not intact:
        raise UserError(
            f"{folder}: no clip is intact ({problems[problems_before]}); index.json is untouched."
        )
    changed = replace_index(folder, completed(folder, header, intact))
    if problems:
        _list(problems)
    frames = int(np.sum([sample.n for sample in intact]))
    print(
        f"index of {len(intact)} clips, {frames} frames: "
        + ("rebuilt" if changed else "was right, unchanged")
    )
    if changed and (folder / BACKUP).is_file():
        print(f"the old index is {folder / BACKUP}")


def _list(problems: Sequence[Problem]) -> None:
    print("\n".join(f"wrong: {problem}" for problem in problems))


def _count(problems: Sequence[Problem]) -> str:
    return "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
