"""Episodes that could not be recorded since their game failed: FOLDER/failed/<name>.json holds why.

They are not tried again, so that a game which fails in the same episode every time can be recorded at all; whoever has mended
the game deletes the folder.
"""

import json
from pathlib import Path

from reverie.data.errors import UserError
from reverie.data.files.documents import MOST_BYTES, parse_json, read_bounded
from reverie.data.files.durable import write_atomic

FAILED = "failed"


class GivenUp:
    """Those of one folder of recorded episodes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FAILED

    @property
    def hint(self) -> str:
        """Where the reasons are, in brackets, for sentences about them."""
        return f" (delete {self.folder} to try again)"

    def add(self, name: str, reasons: list[str]) -> None:
        """Notes what happened in each attempt at episode `name`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"episode": name, "reasons": reasons}, indent=2)
        write_atomic(self._path(name), content.encode() + b"\n")

    def has(self, name: str) -> bool:
        """Whether episode `name` was given up."""
        return self._path(name).is_file()

    def reasons(self, name: str) -> list[str]:
        """Why. Raises `UserError` when the note is damaged."""
        path = self._path(name)
        try:
            return [str(reason) for reason in parse_json(read_bounded(path, MOST_BYTES))["reasons"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}: cannot be read ({error}); delete it to try this episode again."
            ) from None

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"
