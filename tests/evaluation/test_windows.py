"""Held-out windows lie within episodes, do not overlap, and carry the actions that led to their frames."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from reverie.data.errors import UserError
from reverie.data.shards.index import Sample, ShardIndex
from reverie.data.sources.episodes import Recording, read_steps
from reverie.evaluation.windows import Stretch, load_windows, select
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare

LENGTH = 12


def test_windows_stay_inside_their_clip_and_apart(corpus) -> None:  # type: ignore[no-untyped-def]
    chosen = select(corpus.index, LENGTH, 1000, 0, "validation").places
    taken: set[tuple[str, int]] = set()
    for stretch, start in chosen:
        assert len(stretch.clips) == 1 and 0 <= start <= stretch.n - LENGTH
        frames = {(stretch.clips[0].key, f) for f in range(start, start + LENGTH)}
        assert not frames & taken
        taken |= frames


def test_every_clip_gives_a_window_before_one_gives_two(corpus) -> None:  # type: ignore[no-untyped-def]
    samples = corpus.index.samples("validation")
    usable = [s for s in samples if s.n >= LENGTH]
    selection = select(corpus.index, LENGTH, len(usable), 0, "validation")
    assert {s.clips[0].key for s, _ in selection.places} == {s.key for s in usable}
    assert selection.clips_too_short == len(samples) - len(usable) > 0
    assert selection.episodes == len(usable) and selection.clips_unlabelled == 0


def test_the_choice_is_fixed_by_the_seed(corpus) -> None:  # type: ignore[no-untyped-def]
    first, again, other = (select(corpus.index, LENGTH, 5, s, "validation").places for s in (3, 3, 4))
    assert first == again != other


def test_actions_are_those_that_led_to_the_frames(corpus) -> None:  # type: ignore[no-untyped-def]
    places = select(corpus.index, LENGTH, 6, 0, "validation").places
    windows = load_windows(corpus.index, places, LENGTH)
    raw = corpus.data.parent / "raw"
    recording = Recording.load(raw)
    for row, (sample, start) in enumerate(places):
        taken = read_steps(raw, Path(sample.episode).stem, recording).actions["action"]
        for t in range(LENGTH):
            frame = sample.start + start + t
            assert bool(windows.actions.known[row, t]) == (frame > 0)
            if frame:
                assert windows.actions.values["action"][row, t] == taken[frame - 1]
    frames = windows.load_frames([1, 0])
    assert frames.shape == (2, LENGTH, *corpus.index.frame_size, 3) and frames.dtype == torch.uint8


def test_too_long_windows_are_refused_in_one_sentence(corpus) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(
        UserError, match=r"no recording of its validation split has 500 frames .* lower --context"
    ):
        select(corpus.index, 500, 10, 0, "validation")


def test_unlabelled_clips_are_left_out_only_where_others_are_labelled(corpus) -> None:  # type: ignore[no-untyped-def]
    class Mixed(ShardIndex):
        share = 0.5

        def samples(self, split: str) -> list[Sample]:
            clips = corpus.index.samples(split)
            cut = round(self.share * len(clips))
            return [replace(clip, labelled=i >= cut) for i, clip in enumerate(clips)]

    index = Mixed(corpus.index.folder, corpus.index.content)
    selection = select(index, LENGTH, 1000, 0, "validation")
    assert selection.clips_unlabelled == round(0.5 * len(corpus.index.samples("validation")))
    assert all(stretch.clips[0].labelled for stretch, _ in selection.places)
    index.share = 1.0
    assert select(index, LENGTH, 1000, 0, "validation").clips_unlabelled == 0
    assert np.any(
        [not stretch.clips[0].labelled for stretch, _ in select(index, LENGTH, 5, 0, "validation").places]
    )


@pytest.fixture(scope="module")
def short_clips(corpus, tmp_path_factory: pytest.TempPathFactory) -> ShardIndex:  # type: ignore[no-untyped-def]
    """The same recordings, held out in the same way, in clips of 10 frames."""
    out = tmp_path_factory.mktemp("short") / "data"
    settings = {"validation_fraction": 0.3, "workers": 1, "clip_length": 10}
    prepare(PrepareConfig(source=corpus.data.parent / "raw", out=out, **settings))
    return ShardIndex.load(out)


def test_long_windows_join_clips_that_follow_each_other(corpus, short_clips: ShardIndex) -> None:  # type: ignore[no-untyped-def]
    length = 25
    places = select(short_clips, length, 100, 0, "validation").places
    windows = load_windows(short_clips, places, length)
    whole = {episode.name: episode for episode in corpus.index.episodes("validation")}
    assert places and all(len(stretch.clips) > 2 for stretch, _ in places)
    for row, (stretch, start) in enumerate(places):
        clip = whole[stretch.episode].samples[0]
        expected = load_windows(corpus.index, [(Stretch((clip,)), stretch.start + start)], length)
        assert torch.equal(windows.load_frames([row]), expected.load_frames([0]))
        assert torch.equal(windows.actions.known[row], expected.actions.known[0])
        for name, values in windows.actions.values.items():
            assert torch.equal(values[row], expected.actions.values[name][0])


def test_nothing_is_joined_over_a_gap(short_clips: ShardIndex) -> None:
    samples = [s for s in short_clips.content["samples"] if s["split"] == "validation"]
    lost = {s["key"] for s in samples if s["start"] == 10}
    content = {**short_clips.content, "samples": [s for s in samples if s["key"] not in lost]}
    chosen = select(ShardIndex(short_clips.folder, content), 15, 100, 0, "validation")
    assert all(stretch.start >= 20 for stretch, _ in chosen.places)
    assert chosen.clips_too_short >= len(lost)
