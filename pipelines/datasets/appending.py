"""`reverie prepare --base SHARDS`: new sources beside the shards that there are, in their form."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from reverie.data.errors import UserError
from reverie.data.files.durable import fingerprint
from reverie.data.files.lock import sole_writer
from reverie.data.shards.growing import APPENDED, join_shards
from reverie.data.shards.index import INDEX, ShardIndex
from reverie.data.sources.corpus import Corpus
from reverie.pipelines.datasets.prepare_config import PrepareConfig

ADDED = ".added"
"""Folder in `out` of the new shards, until they have joined the others."""
_FORM = ("mode", "clip_length", "validation_fraction", "seed", "quality", "shard_mb")

Prepare = Callable[[PrepareConfig, Corpus], ShardIndex]
"""Makes shards of a corpus."""


def append(config: PrepareConfig, corpus: Corpus, prepare: Prepare) -> ShardIndex:
    """Prepares `corpus` into the form of `config.base` and joins both in `config.out`; the same call again continues.

    The same sources are added once. Episodes get a name of their own, since every recording begins to count at 0.

    Raises `UserError` where base and sources do not fit each other, or `out` holds something else.
    """
    assert config.base is not None
    base = ShardIndex.load(config.base)
    sources = fingerprint([[source.name, source.file_bytes] for source in corpus.sources])
    config.out.mkdir(parents=True, exist_ok=True)
    with sole_writer(config.out):
        if (config.out / INDEX).is_file():
            there = ShardIndex.load(config.out)
            if sources in _known(there):
                shutil.rmtree(config.out / ADDED, ignore_errors=True)
                return there
            if config.out.resolve() != config.base.resolve():
                raise UserError(
                    f"{config.out}: holds shards already, without these sources; give it as --base, too, or another --out."
                )
        elif sources in _known(base):
            raise UserError(f"{config.base}: holds these sources already; there is nothing to add.")
        _require_labels(base, corpus)
        number = len(base.content.get(APPENDED, [])) + 1
        named = tuple(replace(source, name=f"added-{number}/{source.name}") for source in corpus.sources)
        added = prepare(_in_form(config, base), replace(corpus, sources=named))
        joined = join_shards(
            base, added, config.out, {"sources": sources, "clips": len(added.content["samples"])}
        )
        shutil.rmtree(config.out / ADDED)
        return joined


def _known(index: ShardIndex) -> set[str]:
    """Fingerprints of all sources in an index."""
    added = {entry["sources"] for entry in index.content.get(APPENDED, [])}
    return added | {index.content.get("identity", {}).get("sources")}


def _in_form(config: PrepareConfig, base: ShardIndex) -> PrepareConfig:
    """`config` with the settings that made `base`."""
    identity = base.content.get("identity", {})
    form = {name: identity[name] for name in _FORM if name in identity}
    return replace(config, base=None, out=config.out / ADDED, size=base.frame_size, fps=base.fps, **form)


def _require_labels(base: ShardIndex, corpus: Corpus) -> None:
    if base.latent_shape is not None:
        raise UserError(f"{base.folder}: holds latents; give the video shards, and encode them again.")
    if not isinstance(base.folder, Path):
        raise UserError(f"--base {base.folder}: must be a folder of this machine; copy it first.")
    for name, old, new in (
        ("actions", base.action_space, corpus.action_space),
        ("tasks", tuple(base.content["tasks"]), tuple(corpus.tasks)),
    ):
        if old != new:
            raise UserError(
                f"--base {base.folder}: has other {name} than {corpus.folder}; prepare that into a folder of its own, and mix "
                f"both with a YAML file of corpora (docs/data.md)."
            )
