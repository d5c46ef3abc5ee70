"""Episodes of arrays as a corpus of sources."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from reverie.data.actions import ActionSpace, Categorical
from reverie.data.errors import UserError
from reverie.data.files.durable import fingerprint
from reverie.data.sources.arrays.columns import Columns, read_pictures
from reverie.data.sources.arrays.reader import Entry, Reader
from reverie.data.sources.arrays.rows import Fields, as_classes, find_roles, following, one_hot, read_fields
from reverie.data.sources.declaration import NAMES, Declaration, declare
from reverie.data.sources.layout import Layout
from reverie.data.sources.logged import log_of
from reverie.data.sources.source import Corpus, Inspected, Source
from reverie.data.video.sequence import PictureSequence

Classes = Mapping[str, int]
"""Component -> number of classes, of those that are one-hot in every episode."""


def array_corpus(folder: Path, reader: Reader, layout: Layout, fps: float | None) -> Corpus:
    """The episodes of `reader`, with actions as declared in `folder`, as the format tells, or as all episodes show.

    `fps` is the rate where neither `layout` nor the format says one. Raises `UserError` where none is known, and as
    `declare` does.
    """
    rate = layout.rate(folder, reader.told.fps, fps)
    is_declared = any((folder / name).is_file() for name in NAMES)
    classes = {} if is_declared else _classes(reader, layout)
    declared = declare(folder, ()) if is_declared else _infer(folder, reader, layout, classes)
    return Corpus(
        folder=folder,
        action_space=declared.action_space,
        tasks=declared.tasks,
        sources=tuple(_source(name, entry) for name, entry in reader.entries.items()),
        kind=f"{reader.told.kind}: {len(reader.entries)} episodes at {rate:g} fps",
        inferred=declared.to_yaml() if declared.inferred_from and declared.action_space.components else "",
        notes=declared.notes,
        opener=partial(_open, reader=reader, layout=layout, fps=rate, classes=classes),
        identity={"arrays": fingerprint([repr(layout), rate, dict(classes)])},
    )


def _source(name: str, entry: Entry) -> Source:
    return Source(
        name=name,
        video=entry.file,
        log=entry.file,
        keep_suffix=True,
        problem=entry.problem,
        files=(entry.file,),
    )


def _infer(folder: Path, reader: Reader, layout: Layout, classes: Classes) -> Declaration:
    """What all episodes tell, but for components whose kind is known."""
    names = [name for name, entry in reader.entries.items() if not entry.problem]

    def read(name: str) -> Fields:
        return _fields(reader, reader.entries[name], layout, classes)[1]

    found = declare(folder, names, read)
    known = {**reader.told.components, **{name: Categorical(n) for name, n in classes.items()}}
    components = {name: known.get(name, c) for name, c in found.action_space.components.items()}
    return replace(found, action_space=ActionSpace(components))


def _classes(reader: Reader, layout: Layout) -> dict[str, int]:
    """The components that are one-hot in all episodes that can be read."""
    common: dict[str, int] | None = None
    for entry in reader.entries.values():
        try:
            fields = {} if entry.problem else _fields(reader, entry, layout, {})[1]
        except UserError:  # told with its reason when the sources are inspected
            continue
        if fields:
            found = {name: fields[f"action/{name}"].shape[1] for name in one_hot(fields)}
            common = found if common is None else dict(common.items() & found.items())
    return {name: n for name, n in (common or {}).items() if name not in reader.told.components}


def _open(
    source: Source, corpus: Corpus, reader: Reader, layout: Layout, fps: float, classes: Classes
) -> Inspected:
    entry = reader.entries[source.name]
    n, fields, pictures, extra = _fields(reader, entry, layout, classes)
    read = partial(read_pictures, partial(_columns, reader, entry), pictures, extra)
    sequence = PictureSequence.steady(entry.file, read, n, fps)
    video = sequence.survey()
    log = log_of(fields, entry.file, corpus, n)
    return Inspected(video=video, log=log, frames=partial(sequence.frames, (video.height, video.width)))


def _fields(
    reader: Reader, entry: Entry, layout: Layout, classes: Classes
) -> tuple[int, Fields, str, str | None]:
    """Number of pictures, fields of the log, the array of pictures, and the one with the picture behind its last."""
    with _columns(reader, entry) as columns:
        roles = find_roles(columns, layout, reader.led_to)
        n, fields = read_fields(columns, roles)
        extra = following(columns, roles.pictures) if n > len(columns[roles.pictures]) else None
    for name, first in reader.told.starts.items():
        fields[f"action/{name}"] = fields[f"action/{name}"] - first
    return n, as_classes(fields, classes), roles.pictures, extra


@contextmanager
def _columns(reader: Reader, entry: Entry) -> Iterator[Columns]:
    """The arrays of an episode; whatever goes wrong with them is told with the name of the file."""
    try:
        with reader.columns(entry) as columns:
            yield columns
    except UserError as error:
        raise UserError(_placed(str(error), entry)) from None
    except GeneratorExit:
        raise
    except Exception as error:  # damage raises anything
        words = " ".join(str(error).split())[:160].rstrip(".") or type(error).__name__
        raise UserError(f"{entry.file}: cannot be read ({words}); write or download it again.") from None


def _placed(sentence: str, entry: Entry) -> str:
    """A sentence that names its file."""
    if sentence.startswith(str(entry.file)):
        return sentence
    where = f" {entry.group}" if entry.group else ""
    where += f" rows {entry.span[0]} to {entry.span[1] - 1}" if entry.span else ""
    return f"{entry.file}:{where} {sentence.rstrip('.')}."
