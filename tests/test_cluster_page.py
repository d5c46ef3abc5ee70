"""docs/cluster.md: every command line parses to what it says, and its SLURM file asks for what its command uses."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from reverie.pipelines.cli import COMMANDS, parse

PAGE = (Path(__file__).parents[1] / "docs/cluster.md").read_text()
LAUNCHERS = {
    "torchrun": {"--nnodes", "--nproc_per_node", "--rdzv_backend", "--rdzv_endpoint"},
    "accelerate": {"--num_processes"},
    "srun": set(),
    "reverie": set(),
}


def commands(text: str) -> list[str]:
    """The lines of fenced blocks that are commands."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    joined = (block.replace("\\\n", " ") for block in blocks)
    return [line for block in joined for line in block.splitlines() if line and not line.startswith("#")]


def split(line: str) -> tuple[list[str], str, list[str]]:
    """Launcher's words, our command, our flags."""
    words = shlex.split(line)
    marks = [i for i, word in enumerate(words) if word in ("reverie", "reverie.pipelines.cli")]
    assert marks, f"starts nothing of ours: {line}"
    return words[: marks[0]], words[marks[0] + 1], words[marks[0] + 2 :]


@pytest.mark.parametrize("line", commands(PAGE))
def test_every_command_parses(line: str) -> None:
    launcher, name, flags = split(line)
    assert name in COMMANDS
    assert parse(name, flags) is not None
    known = LAUNCHERS[launcher[0] if launcher else "reverie"]
    assert {word for word in launcher if word.startswith("--")} <= known


def test_a_wrong_command_would_be_found() -> None:
    _, name, flags = split("srun reverie dynamics --data d --out o --fabric.device 8")
    with pytest.raises(ValueError, match="fabric.device"):
        parse(name, flags)


def test_the_slurm_file_asks_for_what_its_command_uses() -> None:
    asked = dict(re.findall(r"#SBATCH --([a-z-]+)=(\S+)", PAGE))
    (line,) = [line for line in commands(PAGE) if line.startswith("srun")]
    config: Any = parse("dynamics", split(line)[2])
    assert config.fabric.devices == int(asked["ntasks-per-node"]) == int(asked["gpus-per-node"])
    assert config.fabric.num_nodes == int(asked["nodes"])
    assert config.fabric.shard_size == config.fabric.devices


def test_flags_in_the_text_exist() -> None:
    flags = set(re.findall(r"`--([a-z_]+\.[a-z_]+)", PAGE))
    assert len(flags) > 8
    for flag in sorted(flags):
        value = {"fabric.strategy": "fsdp", "fabric.precision": "auto", "optimizer.name": "muon"}.get(
            flag, "8"
        )
        value = {"training.checkpointing": "layers", "model.softcap": "null"}.get(flag, value)
        assert parse("dynamics", ["--data", "d", "--out", "o", f"--{flag}", value]) is not None
