"""One corpus, or several with weights, read as one: what every training stage learns from.

A mixture is a YAML file:

    corpora:
      - {data: runs/vpt/shards, weight: 3}
      - {data: runs/own/shards, weight: 1, labelled_fraction: 0.1, task: mine_log}
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import gcd, isfinite, lcm
from pathlib import Path
from typing import Any

from reverie.data.actions import ActionSpace, Component
from reverie.data.batch import RETURN
from reverie.data.errors import UserError
from reverie.data.files.documents import MOST_YAML_BYTES, parse_yaml, read_bounded
from reverie.data.files.durable import fingerprint
from reverie.data.files.location import Location, locate
from reverie.data.loading.rewards import Brought, nothing_to_learn, rewards_of
from reverie.data.shards.index import ShardIndex

_SAME_RATE = 0.005
"""Rates closer than this, relatively, are one rate (29.97 and 30)."""
_FIELDS = ("data", "weight", "labelled_fraction", "task")


@dataclass(frozen=True, kw_only=True)
class Share:
    """One corpus of several.

    index              its shards
    weight             of N rows, N * weight / (sum of the weights) come from it
    labelled_fraction  see `LoaderConfig`; None: as the loader is told
    task               the one task of its rows; None: as the loader is told
    rewards            split -> what each episode brought; None where nobody asked for the return
    """

    index: ShardIndex
    weight: int = 1
    labelled_fraction: float | None = None
    task: str | None = None
    rewards: Mapping[str, tuple[Brought | None, ...]] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, kw_only=True)
class Corpora:
    """Corpora of the same kind of frames.

    place         the folder, its URL, or the mixture's file, for people
    shares        at least one; the weights have no common divisor
    action_space  the components of all
    tasks         the tasks of all, by name; `RETURN` is the last where it was asked for
    """

    place: Location
    shares: tuple[Share, ...]
    action_space: ActionSpace
    tasks: list[str]

    @classmethod
    def load(cls, place: Location | str) -> "Corpora":
        """Reads a folder of shards, also behind a URL, or a YAML file that mixes several.

        Raises `UserError` when the file or a folder is damaged, or when the corpora do not go together.
        """
        place = locate(place)
        if isinstance(place, Path) and place.is_file():
            return cls.unite(place, _read_mixture(place))
        return cls.of(ShardIndex.load(place))

    @classmethod
    def of(cls, index: ShardIndex) -> "Corpora":
        """One corpus."""
        return cls.unite(index.folder, [Share(index=index)])

    @classmethod
    def unite(cls, place: Location, shares: Sequence[Share]) -> "Corpora":
        """Several corpora. Raises `UserError` naming what differs when they do not go together."""
        indices = [share.index for share in shares]
        for other in indices[1:]:
            _require_same(place, indices[0], other)
        tasks = [task for index in indices for task in index.tasks]
        return cls(
            place=place,
            shares=tuple(shares),
            action_space=_united_actions(place, indices),
            tasks=list(dict.fromkeys(tasks)),
        )

    def with_return(self) -> "Corpora":
        """The same with the game's own reward as the last of the tasks, `RETURN`.

        Reads the log of every clip. Raises `UserError` when a task is called so, or when the rewards teach nothing.
        """
        if self.has_return:
            return self
        if RETURN in self.tasks:
            raise UserError(
                f"{self.place}: has a task called {RETURN!r}, the name of the game's own reward; give the task another name and "
                f"prepare the data again."
            )
        shares = tuple(replace(share, rewards=rewards_of(share.index)) for share in self.shares)
        told = [brought for share in shares for brought in (share.rewards or {}).get("train", ())]
        if problem := nothing_to_learn(told):
            raise UserError(
                f"{self.place}: has no return to learn: {problem}; log the game's `reward` beside the videos, of better and "
                f"worse episodes (docs/data/videos.md)."
            )
        return replace(self, shares=shares, tasks=[*self.tasks, RETURN])

    @property
    def has_return(self) -> bool:
        """Whether the game's own reward is one of the tasks."""
        return any(share.rewards is not None for share in self.shares)

    def hash(self) -> str:
        """Of all data, weights and settings; of one corpus, `ShardIndex.hash`."""
        if self.shares == (Share(index=self._first),):
            return self._first.hash()
        return fingerprint([[s.index.hash(), s.weight, s.labelled_fraction, s.task] for s in self.shares])

    @property
    def fps(self) -> float:
        """Frames a second."""
        return self._first.fps

    @property
    def frame_size(self) -> tuple[int, int]:
        """(height, width), see `ShardIndex.frame_size`."""
        return self._first.frame_size

    @property
    def latent_shape(self) -> tuple[int, int] | None:
        """(N_z, D_z) of latents, None of video."""
        return self._first.latent_shape

    @property
    def tokenizer_sha256(self) -> str | None:
        """Which tokenizer made the latents; None of video."""
        return self._first.tokenizer_sha256

    def knows_all_actions(self, share: Share) -> bool:
        """Whether the corpus logs every component; where it does not, an action counts as unknown."""
        return len(share.index.action_space.components) == len(self.action_space.components)

    @property
    def _first(self) -> ShardIndex:
        return self.shares[0].index


def turn(number: int, weights: Sequence[int]) -> tuple[int, int]:
    """Which corpus row `number` comes from, and its number among the rows of that corpus.

    Any sum(weights) rows in a row that begin at a multiple of it hold exactly `weights`, evenly spread.
    """
    total = sum(weights)
    for corpus, weight in enumerate(weights[:-1]):
        before = number * weight // total
        if (number + 1) * weight // total > before:
            return corpus, before
        # Its number among the rows of the corpora that follow.
        number, total = number - before, total - weight
    return len(weights) - 1, number


def _read_mixture(path: Path) -> list[Share]:
    entries = list(_entries(path))
    weights = _whole_weights([Fraction(str(entry.get("weight", 1))) for entry in entries])
    return [_share(path, entry, weight) for entry, weight in zip(entries, weights, strict=True)]


def _entries(path: Path) -> Iterator[Mapping[str, Any]]:
    """The corpora that a mixture's file lists, with values of the right kind."""
    try:
        content = parse_yaml(read_bounded(path, MOST_YAML_BYTES))
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())}).") from None
    listed = content.get("corpora") if isinstance(content, dict) and len(content) == 1 else None
    if not isinstance(listed, list) or not listed or not all(isinstance(entry, dict) for entry in listed):
        raise UserError(
            f"{path}: is no mixture; it should hold `corpora`, a list of {{data: FOLDER, weight: NUMBER}}."
        )
    for number, entry in enumerate(listed, 1):
        if problem := _problem(entry):
            raise UserError(f"{path}: corpus {number}: {problem}.")
        yield entry


def _problem(entry: Mapping[str, Any]) -> str | None:
    unknown = [str(name) for name in entry if name not in _FIELDS]
    if unknown:
        return f"unknown field {unknown[0]!r}; its fields are {', '.join(_FIELDS)}"
    weight, fraction = entry.get("weight", 1), entry.get("labelled_fraction")
    if not isinstance(entry.get("data"), str):
        return "data: should be the path or URL of a folder of shards"
    if not _is_number(weight) or weight <= 0:
        return f"weight: should be a number above 0, got {weight!r}"
    if fraction is not None and not (_is_number(fraction) and 0 <= fraction <= 1):
        return f"labelled_fraction: should be a number in [0, 1], got {fraction!r}"
    if not isinstance(entry.get("task"), str | None):
        return f"task: should be the name of a task, got {entry['task']!r}"
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _whole_weights(weights: Sequence[Fraction]) -> list[int]:
    """The same ratios in whole numbers without a common divisor."""
    scale = lcm(*(weight.denominator for weight in weights))
    whole = [int(weight * scale) for weight in weights]
    return [weight // gcd(*whole) for weight in whole]


def _share(path: Path, entry: Mapping[str, Any], weight: int) -> Share:
    index = ShardIndex.load(entry["data"])
    task, fraction = entry.get("task"), entry.get("labelled_fraction")
    if task not in (None, RETURN, *index.tasks):
        known = ", ".join(index.tasks) or "none"
        raise UserError(f"{path}: {index.folder} has no task {task!r}; its tasks are: {known}.")
    shown = None if fraction is None else float(fraction)
    return Share(index=index, weight=weight, labelled_fraction=shown, task=task)


def _require_same(place: Location, a: ShardIndex, b: ShardIndex) -> None:
    if (a.latent_shape is None) != (b.latent_shape is None):
        video, latents = (a, b) if a.latent_shape is None else (b, a)
        raise UserError(
            f"{place}: {video.folder} holds video and {latents.folder} latents; give one kind, `reverie encode` "
            f"makes latents."
        )
    for name, fix in (
        ("frame_size", "prepare them with one --size"),
        ("latent_shape", "encode them with one tokenizer"),
        ("tokenizer_sha256", "encode them with one tokenizer"),
        ("fps", "prepare them with one --fps"),
    ):
        x, y = getattr(a, name), getattr(b, name)
        if x != y and not (name == "fps" and abs(x / y - 1) < _SAME_RATE):
            raise UserError(f"{place}: {name} is {x} in {a.folder}, but {y} in {b.folder}; {fix}.")


def _united_actions(place: Location, indices: Sequence[ShardIndex]) -> ActionSpace:
    """All components, in the order of their names, which is that of every index."""
    found: dict[str, tuple[Component, ShardIndex]] = {}
    for index in indices:
        for name, component in index.action_space.components.items():
            known, where = found.setdefault(name, (component, index))
            if known != component:
                raise UserError(
                    f"{place}: {where.folder} and {index.folder} define the action {name!r} with another "
                    f"{_first_difference(known, component)}; declare it alike in actions.yaml and prepare again."
                )
    return ActionSpace({name: found[name][0] for name in sorted(found)})


def _first_difference(a: Component, b: Component) -> str:
    if type(a) is not type(b):
        return "kind"
    return next(name for name, value in vars(a).items() if value != getattr(b, name))
