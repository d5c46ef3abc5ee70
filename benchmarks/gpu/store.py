"""What was measured so far: one JSON file, a record for each row on each device, always whole."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reverie.pipelines.runs.atomic import write_json


@dataclass(frozen=True)
class Store:
    """Records {"figures": ...} or {"problem": ...} by device and row.

    path    the file
    device  whose records are read and written; those of others stay
    """

    path: Path
    device: str

    def records(self) -> dict[str, Any]:
        """Of this device."""
        found = self._all().get(self.device, {})
        return found if isinstance(found, dict) else {}

    def put(self, row: str, record: dict[str, Any]) -> None:
        """Writes one record; killed at any moment, the file holds what it held before or all of it."""
        everything = self._all()
        everything[self.device] = self.records() | {row: record}
        write_json(self.path, everything)

    def _all(self) -> dict[str, Any]:
        try:
            found = json.loads(self.path.read_text())
        except FileNotFoundError:
            return {}
        return found if isinstance(found, dict) else {}
