"""Mixture files for tests, and a second list of tasks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

OTHER_TASKS = ("goal", "window")
OTHER_EVENTS = {200: [(20, 0), (40, 1)], 201: [(30, 1)], 202: [(12, 0), (25, 1)]}


def write_mixture(path: Path, weights: Mapping[Path, float], **fields: Any) -> Path:
    """A mixture of folders; `fields` are those of the last one."""
    corpora: list[dict[str, Any]] = [{"data": str(folder), "weight": w} for folder, w in weights.items()]
    corpora[-1] |= fields
    path.write_text(yaml.safe_dump({"corpora": corpora}))
    return path
