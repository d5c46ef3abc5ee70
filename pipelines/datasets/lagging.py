"""What `data check` and `prepare` say about actions that stand a frame early or late against the pictures."""

from math import prod

from reverie.data.errors import UserError
from reverie.data.shards.alignment import LAGS, Alignment, Evidence, Verdict
from reverie.data.shards.checking import all_samples
from reverie.data.shards.index import ShardIndex
from reverie.data.shards.reader import ShardReader

_HINT_FRAMES = 4000
_HINT_PIXELS = 400_000_000
"""Frames, and pixels in them, that `prepare` decodes again for its hint: some seconds."""

_SENTENCES = {
    Verdict.FITS: "the actions stand where the pictures answer them",
    Verdict.LATE: (
        "the actions stand one frame LATE: each stands beside the frame that it led to, not beside the one at which it was "
        "taken; move them one frame up in the source and prepare again"
    ),
    Verdict.EARLY: (
        "the pictures answer one frame after they should: the actions stand one frame EARLY (move them one frame down in the "
        "source and prepare again), or the game itself shows them a frame late"
    ),
    Verdict.UNCLEAR: "not enough to tell whether the actions stand at the right frames",
}


def alignment_lines(evidence: Evidence | None) -> list[str]:
    """The verdict in a sentence, and the figures it rests on as a small table."""
    if evidence is None:
        return [f"alignment: {_SENTENCES[Verdict.UNCLEAR]}; too few frames have known actions"]
    head = f"alignment: {_SENTENCES[evidence.verdict]}"
    basis = f"  {evidence.frames} changes in {evidence.stretches} stretches; how much of them only the action explains"
    lines = [head, "", basis, f"{'lag':>5}{'share':>10}{'standard errors from 0':>26}"]
    for lag, share, lead in zip(LAGS, evidence.shares, evidence.leads, strict=True):
        lines.append(f"{lag:>+5}{share:>10.2%}{lead:>+26.1f}")
    return [*lines, ""]


def shifted_actions(index: ShardIndex) -> str | None:
    """The sentence for actions that stand early or late, from some clips of video shards; None where nothing is wrong."""
    evidence = _sampled(index)
    if evidence is None or evidence.verdict in (Verdict.FITS, Verdict.UNCLEAR):
        return None
    return f"alignment: {_SENTENCES[evidence.verdict]} (`reverie data check {index.folder}` has the figures)"


def _sampled(index: ShardIndex) -> Evidence | None:
    labelled = [sample for sample in all_samples(index) if sample.labelled]
    most = min(_HINT_FRAMES, _HINT_PIXELS // prod(index.frame_size))
    alignment = Alignment(index.action_space, sum(sample.n for sample in labelled), most)
    reader = ShardReader(index)
    try:
        for sample in labelled:
            if alignment.wants(sample.n):
                alignment.add(reader.frames(sample, 0, sample.n), reader.steps(sample))
    except UserError:  # damage is told where the clip is used
        return None
    finally:
        reader.close()
    return alignment.evidence()
