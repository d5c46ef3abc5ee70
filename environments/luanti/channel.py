"""What goes to and from our mod inside the game: commands as a file, and a line of JSON after every step of the server."""

import json
import os
from pathlib import Path
from typing import Any

Report = dict[str, Any]
_PIPE_BYTES = 1 << 16


class Channel:
    """Our end; `folder` is where the mod looks for the other."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._command = folder / "command"
        os.mkfifo(folder / "report")
        # Opened for both directions: the mod can open its end at any time, and never meets a closed pipe.
        self._pipe = os.open(folder / "report", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._text = b""

    def command(self, name: str, **fields: Any) -> None:
        """Asks for something to be done in the next step."""
        self._command.with_suffix(".new").write_text(json.dumps({"command": name, **fields}))
        self._command.with_suffix(".new").rename(self._command)

    def fileno(self) -> int:
        """The pipe, on which reports come."""
        return self._pipe

    def reports(self) -> list[Report]:
        """All whole reports that have come."""
        while part := self._read():
            self._text += part
        *lines, self._text = self._text.split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """Closes the pipe."""
        os.close(self._pipe)

    def _read(self) -> bytes:
        try:
            return os.read(self._pipe, _PIPE_BYTES)
        except BlockingIOError:
            return b""
