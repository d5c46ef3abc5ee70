"""The report a person looks at: one HTML page with everything inside it, and the same figures as report.json.

`report.html` needs no other file and no network, but for films of long episodes. Its pictures and videos also lie in `media/`.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, Template

from reverie.data.files.durable import write_atomic
from reverie.evaluation.charts import NAMES
from reverie.evaluation.metrics import PSNR_CAP
from reverie.evaluation.video import MAX_FPS

Figures = Mapping[str, Any]
"""The content of report.json: plain values, estimates as `Estimate.to_json` writes them."""

_TYPES = {".png": "image/png", ".mp4": "video/mp4"}
_TABLE_STEPS = 8
EMBEDDED_BYTES = 4_000_000
"""Longer films are not put into the page."""


@dataclass(frozen=True)
class Media:
    """A picture or video: its file name in `media/`, what it shows, its bytes; None of a long film, which only lies there."""

    name: str
    caption: str
    content: bytes | None

    @classmethod
    def stored(cls, path: Path, caption: str) -> "Media":
        """Of a file that lies in `media/` already."""
        content = path.read_bytes() if path.stat().st_size <= EMBEDDED_BYTES else None
        return cls(path.name, caption, content)

    @property
    def data_uri(self) -> str:
        """An address that HTML can show: the bytes themselves, or the file's."""
        if self.content is None:
            return f"media/{quote(self.name)}"
        kind = _TYPES[Path(self.name).suffix]
        return f"data:{kind};base64,{base64.b64encode(self.content).decode()}"


@dataclass
class Gallery:
    """What there is to see, by place in the report. Charts are SVG text."""

    reconstruction_grids: list[Media] = field(default_factory=list)
    rollout_films: list[Media] = field(default_factory=list)
    rollout_strips: list[Media] = field(default_factory=list)
    baseline_strips: list[Media] = field(default_factory=list)
    agent_films: dict[str, list[Media]] = field(default_factory=dict)
    horizon_chart: str = ""
    world_models_chart: str = ""
    success_chart: str = ""
    trust_chart: str = ""
    drift_chart: str = ""

    def files(self) -> list[Media]:
        """All pictures and videos."""
        films = [film for player in self.agent_films.values() for film in player]
        return [
            *self.reconstruction_grids,
            *self.rollout_films,
            *self.rollout_strips,
            *self.baseline_strips,
            *films,
        ]


def write_report(folder: Path, figures: Figures, gallery: Gallery) -> Path:
    """Writes report.json, media/ and report.html into `folder`; returns the path of the page."""
    (folder / "media").mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "report.json", json.dumps(figures, indent=2, allow_nan=False).encode() + b"\n")
    for media in gallery.files():
        if media.content is None:
            continue
        (folder / "media" / media.name).write_bytes(media.content)
    for name in ("horizon_chart", "world_models_chart", "success_chart", "trust_chart", "drift_chart"):
        if chart := getattr(gallery, name):
            (folder / "media" / f"{name}.svg").write_text(chart)
    page = folder / "report.html"
    write_atomic(page, render(figures, gallery).encode())
    return page


def render(figures: Figures, gallery: Gallery) -> str:
    """The HTML page."""
    return page_template("report.html.j2").render(
        figures=figures,
        tiles=_tiles(figures),
        best=best_player(figures),
        names=NAMES,
        psnr_cap=PSNR_CAP,
        max_fps=MAX_FPS,
        film_width=420 if "shuffled" not in figures.get("rollouts", {}).get("curves", {}) else 480,
        table_steps=_steps(figures),
        provenance=_provenance(figures),
        **vars(gallery),
    )


def page_template(name: str) -> Template:
    """A page of this room, with filters for estimates: `value` and `interval` of what `Estimate.to_json` writes."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True
    )
    environment.filters |= {"value": _value, "interval": _interval}
    return environment.get_template(name)


def _tiles(figures: Figures) -> list[dict[str, str]]:
    """The headline figures."""
    tiles = []
    if "reconstruction" in figures:
        psnr = figures["reconstruction"]["scores"]["psnr"]
        tiles.append({"value": f"{_value(psnr, 1)} dB", "text": "PSNR of the tokenizer on held-out frames"})
    for name, lead in figures.get("rollouts", {}).get("advantage", {}).items():
        text = f"PSNR of rollouts against {NAMES[name]}, mean over the horizon"
        tiles.append({"value": f"{_value(lead['average'], 1, signed=True)} dB", "text": text})
    shown = [row for row in _players(figures) if row["learned"] or row["player"] == "random"]
    return tiles + [_player_tile(row, figures["games"]["task"]) for row in shown] + _quest_tiles(figures)


def _quest_tiles(figures: Figures) -> list[dict[str, str]]:
    """Each learned player at the last milestone that anyone reached."""
    if "quest" not in figures:
        return []
    players = figures["quest"]["players"]
    reached = [
        item for item in figures["quest"]["milestones"] if any(r["success"][item]["value"] for r in players)
    ]
    item = (reached or figures["quest"]["milestones"])[-1]
    return [
        {"value": f"{_value(row['success'][item], 1, 100)} %", "text": f"{item}: {row['player']}"}
        for row in players
        if row["learned"]
    ]


def _player_tile(row: Mapping[str, Any], task: str | None) -> dict[str, str]:
    if task is None:
        return {"value": _value(row["return"]), "text": f"return: {row['player']}"}
    return {"value": f"{_value(row['success'][task], 1, 100)} %", "text": f"{task}: {row['player']}"}


def best_player(figures: Figures) -> str | None:
    """The learned player whose interval lies above those of all other learned ones; None where chance could have made it."""
    learned = [row for row in _players(figures) if row["learned"]]
    task = figures["games"]["task"] if learned else None
    scores = [(row["success"][task] if task else row["return"], str(row["player"])) for row in learned]
    scores = [(score, name) for score, name in scores if score["value"] is not None]
    if not scores:
        return None
    best, name = max(scores, key=lambda pair: pair[0]["value"])
    rivals = [score for score, other in scores if other != name]
    low = best["low"] if best["low"] is not None else best["value"]
    beaten = all(low > (s["high"] if s["high"] is not None else s["value"]) for s in rivals)
    return name if beaten else None


def _players(figures: Figures) -> list[dict[str, Any]]:
    return figures["games"]["players"] if "games" in figures else []


def _steps(figures: Figures) -> list[int]:
    """The horizon steps of the table: 1, 2, then evenly to the end."""
    horizon = figures.get("rollouts", {}).get("horizon", 0)
    spread = {1, 2, *(round(horizon * i / (_TABLE_STEPS - 2)) for i in range(1, _TABLE_STEPS - 1))}
    return sorted(step for step in spread if 1 <= step <= horizon)


def _provenance(figures: Figures) -> list[tuple[str, str]]:
    """Name and text of every setting and source."""
    rows = {**figures["settings"], **figures["provenance"]}
    return [(name, _text(value)) for name, value in rows.items() if value not in (None, {}, [])]


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_text(item) for item in value)
    return str(value)


def _value(
    estimate: Mapping[str, float | None] | None, digits: int = 2, scale: float = 1, signed: bool = False
) -> str:
    if estimate is None or estimate["value"] is None:
        return "–"
    return f"{estimate['value'] * scale:{'+' if signed else ''}.{digits}f}"


def _interval(estimate: Mapping[str, float | None], digits: int = 2, scale: float = 1) -> str:
    low, high = estimate["low"], estimate["high"]
    return "" if low is None or high is None else f"[{low * scale:.{digits}f}, {high * scale:.{digits}f}]"
