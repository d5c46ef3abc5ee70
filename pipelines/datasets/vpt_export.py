"""The part of `reverie data export` that turns recorded episodes into recordings as OpenAI's VPT contractors made them.

OUT/<name>.mp4     the recorded video, byte for byte
OUT/<name>.jsonl   its log, see `data.sources.vpt.writer`; written last: with it the recording is complete
"""

import shutil
from pathlib import Path

from reverie.data.errors import UserError
from reverie.data.files.durable import PARTIAL, canonical_json, explain_full_disk, new_file, write_atomic
from reverie.data.files.location import Location
from reverie.data.files.lock import LOCK, sole_writer
from reverie.data.sources.episodes import Recording, complete_episodes, read_steps, video_path
from reverie.data.sources.vpt.minecraft import SPACE
from reverie.data.sources.vpt.recordings import FPS
from reverie.data.sources.vpt.writer import vpt_log
from reverie.pipelines.runs.progress import meter

RECORD = "export.json"
FRAME_SIZE = (360, 640)


def export_vpt(folder: Location, out: Path) -> None:
    """Writes all episodes of `folder` that are not in `out` yet, and lists those that cannot be written.

    Raises `UserError` when the folder holds no recorded episodes, or they are not like VPT's.
    """
    if not isinstance(folder, Path) or not (folder / "recording.json").is_file():
        raise UserError(
            f"{folder}: holds no recorded episodes, which --steps vpt needs; give the --out of `record`."
        )
    recording = Recording.load(folder)
    _require_alike(recording, folder)
    names = complete_episodes(folder)
    problems: list[str] = []
    with sole_writer(out), explain_full_disk(out), meter("export episodes", len(names)) as shown:
        _begin(out, recording)
        for name in names:
            try:
                _write(folder, name, recording, out)
            except UserError as error:
                problems.append(f"skipped {error}")
            shown.update()
    for line in problems:
        print(line)
    print(f"{out}: {len(names) - len(problems)} recordings")


def _write(folder: Path, name: str, recording: Recording, out: Path) -> None:
    if (out / f"{name}.jsonl").exists():
        return
    steps = read_steps(folder, name, recording)
    if steps.statuses is None:
        raise UserError(f"{folder / 'episodes' / name}.npz: holds no statistics; record this episode again.")
    with new_file(out / f"{name}.mp4") as partial:
        shutil.copyfile(video_path(folder, name), partial)
    write_atomic(out / f"{name}.jsonl", b"".join(vpt_log(steps)))


def _require_alike(recording: Recording, folder: Path) -> None:
    if recording.action_space != SPACE:
        raise UserError(
            f"{folder}: was not played with Minecraft's keys and mouse; --steps vpt cannot say its actions."
        )
    if recording.frame_size != FRAME_SIZE or recording.fps != FPS:
        height, width = recording.frame_size
        raise UserError(
            f"{folder}: has frames of {height} x {width} at {recording.fps:g} Hz, VPT's recordings of 360 x 640 at {FPS}; "
            f"record with the game's own frame size."
        )


def _begin(out: Path, recording: Recording) -> None:
    """Makes the folder, or finds in it the export that is to be continued."""
    record = canonical_json({"format": 1, "form": "vpt", "recording": recording.to_json()})
    path = out / RECORD
    out.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        if any(item.name != LOCK and not item.name.startswith(PARTIAL) for item in out.iterdir()):
            raise UserError(f"{out}: holds something else already; choose a new folder.")
        write_atomic(path, record)
    if path.read_bytes() != record:
        raise UserError(f"{path}: is of an export of other episodes; choose a new folder.")
