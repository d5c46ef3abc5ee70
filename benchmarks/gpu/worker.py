"""Measures one row: `python -m benchmarks.gpu.worker ROW FOLDER OUT [--small]` writes its record to OUT."""

import json
import sys
import traceback
from pathlib import Path
from typing import Any

from benchmarks.gpu.rows import ROWS, Work


def main() -> None:
    """Figures, or the problem in a line; never an error."""
    name, folder, out = sys.argv[1:4]
    row = next(row for row in ROWS if row.name == name)
    Path(out).write_text(json.dumps(record(lambda: row.measure(Work(Path(folder), "--small" in sys.argv)))))


def record(measure: Any) -> dict[str, Any]:
    """What `measure` returns, or what it failed with."""
    try:
        return {"figures": measure()}
    except Exception as error:  # whatever a row fails with, the next ones run
        traceback.print_exc()
        return {"problem": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


if __name__ == "__main__":
    main()
