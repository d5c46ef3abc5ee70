"""How much a download will take, from the sizes of a sample, and whether the disk has room for it."""

import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from math import inf, sqrt
from pathlib import Path
from statistics import NormalDist

import numpy as np

from reverie.data.errors import UserError
from reverie.data.files.transfer import Http, TransferError
from reverie.pipelines.runs.progress import meter

CONFIDENCE = 0.95
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


@dataclass(frozen=True)
class SizeSample:
    """Sizes of some of `total` files of one kind; a file that is not on the server counts 0 bytes.

    missing     files of the sample that the server does not have
    unanswered  files of which nothing could be learnt; they are no part of the sample
    """

    total: int
    sizes: Sequence[int]
    missing: int = 0
    unanswered: int = 0

    @property
    def bytes(self) -> float:
        """Of all files, estimated."""
        return self.total * float(np.mean(self.sizes)) if self.sizes else 0.0

    @property
    def variance(self) -> float:
        """Of `bytes`: 0 if every file was asked, inf if one size must stand for many."""
        n = len(self.sizes)
        if n >= self.total:
            return 0.0
        return inf if n < 2 else self.total**2 * float(np.var(self.sizes, ddof=1)) / n * (1 - n / self.total)


def print_estimate(
    files: Mapping[str, Sequence[tuple[Path, str]]], out: Path, http: Http, sample: int, workers: int
) -> None:
    """Asks for the sizes of `sample` files of each kind and prints what all will take.

    Args:
        files: kind -> (where a file goes, where it comes from) of all that are missing.

    Raises `UserError` when not one size of a kind can be learnt.
    """
    samples = {kind: _ask(kind, missing, http, sample, workers) for kind, missing in files.items()}
    for kind, asked in samples.items():
        unanswered = f", {asked.unanswered} did not answer" if asked.unanswered else ""
        print(
            f"{kind}: {asked.total:,} files to download, about {format_bytes(asked.bytes)}; "
            f"{len(asked.sizes):,} asked, {asked.missing:,} of them not on the server{unanswered}"
        )
    low, value, high = total_bytes(list(samples.values()))
    free = shutil.disk_usage(
        next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    ).free
    interval = f"[{format_bytes(low)}, {format_bytes(high)}]"
    print(f"to download: {format_bytes(value)}, {CONFIDENCE:.0%} interval {interval}")
    verdict = "enough" if high < free else "not enough" if low > free else "perhaps not enough"
    print(f"free on the disk of {out}: {format_bytes(free)}, {verdict}")


def total_bytes(samples: Sequence[SizeSample]) -> tuple[float, float, float]:
    """(low, estimate, high): kinds differ much in size, so each is estimated by itself."""
    value = sum(asked.bytes for asked in samples)
    half = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * sqrt(sum(asked.variance for asked in samples))
    return max(0.0, value - half), value, value + half


def format_bytes(count: float) -> str:
    """`12.3 GB`, in powers of 1000."""
    if count == inf:
        return "unknown"
    for unit in _UNITS[:-1]:
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} {_UNITS[-1]}"


def _ask(kind: str, missing: Sequence[tuple[Path, str]], http: Http, sample: int, workers: int) -> SizeSample:
    # Chosen by a hash of the address: the same in every call, and no kind of recording is preferred.
    chosen = sorted((url for _, url in missing), key=lambda url: sha256(url.encode()).digest())[:sample]
    answers, pool = [], ThreadPoolExecutor(workers)
    try:
        with meter(f"ask {kind}", len(chosen)) as shown:
            for answer in pool.map(partial(_size, http), chosen):
                answers.append(answer)
                shown.update()
    except KeyboardInterrupt:
        http.stopped.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    known = [answer for answer in answers if not isinstance(answer, TransferError)]
    if answers and not known:
        raise UserError(f"{chosen[0]}: its size cannot be learnt ({answers[0]}); check the network.")
    return SizeSample(
        total=len(missing),
        sizes=[answer or 0 for answer in known],
        missing=known.count(None),
        unanswered=len(answers) - len(known),
    )


def _size(http: Http, url: str) -> int | None | TransferError:
    try:
        return http.size(url)
    except TransferError as error:
        return error
