"""What cloning needs of its data, and the sentence when it is not there."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from reverie.data.errors import UserError
from reverie.pipelines.stages.clone import train_clone
from tests.pipelines.small_stages import Corpus


def test_a_game_without_tasks_is_told_what_is_missing(corpus: Corpus, tmp_path: Path) -> None:
    """Its actions are logged: that is not what it lacks."""
    latents = shutil.copytree(corpus.finished("encode"), tmp_path / "latents")
    content = json.loads((latents / "index.json").read_text())
    content["tasks"] = []
    for clip in content["samples"]:
        clip["events"] = None
    (latents / "index.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="has logged actions but no tasks to clone.*event/<task>"):
        train_clone(replace(corpus.config("clone", tmp_path / "out"), data=str(latents)))
