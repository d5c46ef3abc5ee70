"""A world's repository on the Hugging Face hub, or on a server that speaks its protocol ($HF_ENDPOINT)."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reverie.data.errors import UserError
from reverie.pipelines.worlds.manifest import MANIFEST, Manifest

_REPOSITORY = re.compile(r"([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@([\w./-]{1,200}))?")
MOST_MANIFEST_BYTES = 1 << 20


@dataclass(frozen=True)
class HubWorld:
    """One repository: its name, OWNER/NAME, the revision that is read, and the place as it was given, for errors."""

    repository: str
    revision: str
    place: str

    @classmethod
    def at(cls, path: str, place: str) -> "HubWorld":
        """Of OWNER/NAME[@REVISION]. Raises `UserError` for anything else."""
        found = _REPOSITORY.fullmatch(path.rstrip("/"))
        if found is None or ".." in path:
            raise UserError(
                f"{place}: is no repository; write it as hf://OWNER/NAME or hf://OWNER/NAME@REVISION."
            )
        return cls(found[1], found[2] or "main", place)

    def read(self, name: str, size: int | None = None) -> bytes:
        """The bytes of one file; of `size` bytes, or of a manifest's at most, which is asked before anything is fetched.

        Raises `UserError` where it is not there or has another size.
        """
        hub = _hub()
        with self._told(name), tempfile.TemporaryDirectory() as cache:
            url = hub.hf_hub_url(self.repository, name, revision=self.revision, endpoint=_endpoint())
            told = hub.get_hf_file_metadata(url, endpoint=_endpoint()).size
            if told is None or (told > MOST_MANIFEST_BYTES if size is None else told != size):
                wanted = f"at most {MOST_MANIFEST_BYTES:,}" if size is None else f"{size:,}"
                raise UserError(
                    f"{self.place}: {name} has {told} bytes, expected {wanted}; it is not pulled."
                )
            path = hub.hf_hub_download(
                self.repository, name, revision=self.revision, cache_dir=cache, endpoint=_endpoint()
            )
            return Path(path).read_bytes()

    def upload(self, folder: Path, manifest: Manifest, *, private: bool) -> None:
        """Makes the repository if there is none, and commits the world's files to it in one commit."""
        hub = _hub()
        api = hub.HfApi(endpoint=_endpoint())
        with self._told("upload"):
            api.create_repo(self.repository, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=self.repository,
                folder_path=folder,
                revision=self.revision,
                allow_patterns=[MANIFEST, *manifest.files],
                commit_message=f"World {manifest.name}",
            )

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Whatever the library or the network raises is a sentence."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # of requests, httpx or the hub, which versions name differently
            said = " ".join(str(error).split())[:200].rstrip(".")
            raise UserError(f"{self.place}: {what}: {type(error).__name__}, {said}.") from None


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise UserError('hf://: needs huggingface_hub; run pip install "reverie[hub]".') from None
    return huggingface_hub


def _endpoint() -> str | None:
    """Another server than huggingface.co."""
    return os.environ.get("HF_ENDPOINT") or None
