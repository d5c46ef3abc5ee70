"""`reverie profile`: every stage on its own data, without a run folder, and generation."""

import json
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from reverie.dynamics.model import DynamicsConfig
from reverie.pipelines.cli import main
from reverie.pipelines.profile import STAGES, ProfileConfig, profile
from reverie.pipelines.profile_generate import GenerateProfile, profile_generate
from reverie.pipelines.trace import most_expensive
from reverie.tokenizer.model import TokenizerConfig
from tests.pipelines.small_stages import Corpus

SMALL = DynamicsConfig(width=32, depth=4, num_heads=2, num_kv_heads=1, num_registers=1, context_length=4)
DECODER = TokenizerConfig(
    frame_size=(16, 16), width=32, num_heads=2, num_kv_heads=2, bottleneck_tokens=4, bottleneck_channels=8
)


def as_profile(config: Any, trace: Path) -> Any:
    """The settings of a stage as those of its profile."""
    kind = next(x for x, (_, stage, _) in STAGES.items() if stage is type(config))
    values = {x.name: getattr(config, x.name) for x in fields(config)}
    return kind(**values, profile=ProfileConfig(steps=2, warmup=1, trace=trace))


@pytest.mark.parametrize("stage", ["tokenizer", "dynamics", "clone", "imagine", "v2", "online"])
def test_a_stage_is_measured_and_nothing_of_it_is_left(
    stage: str, corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "trace.json"
    profile(as_profile(corpus.config(stage, tmp_path / "run"), trace))
    said = capsys.readouterr().out
    for word in (
        "FLOPs a step",
        "matmul rate",
        "MFU",
        "frames/s",
        "data",
        "forward",
        "backward",
        "optimizer",
    ):
        assert word in said, word
    assert len(re.findall(r" calls +[\d.]+ ms", said)) == 10
    assert figure(said, "FLOPs a step") > 1e5
    names = {event.get("name") for event in json.loads(trace.read_text())["traceEvents"]}
    assert {"data", "forward", "backward", "optimizer", "aten::mm"} <= names
    assert [path.name for path in tmp_path.iterdir()] == ["trace.json"]


def test_parts_add_up_to_a_step(corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile(as_profile(corpus.config("tokenizer", tmp_path / "run"), tmp_path / "trace.json"))
    line = next(x for x in capsys.readouterr().out.splitlines() if "parts of a step" in x)
    shares = [float(share) for share in re.findall(r"([\d.]+)%", line)]
    assert sum(shares) == pytest.approx(100, abs=0.5) and shares[-1] < 20


@pytest.mark.parametrize("decode", [True, False])
def test_generation_is_measured(decode: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = GenerateProfile(
        model=SMALL,
        decoder=DECODER,
        context=6,
        batch_size=2,
        decode=decode,
        profile=ProfileConfig(steps=3, warmup=1, trace=tmp_path / "trace.json"),
    )
    profile_generate(config)
    said = capsys.readouterr().out
    assert "K = 4, 2 videos: 3 steps" in said
    share = re.search(r"decode ([\d.]+)%", said)
    assert share is not None and (float(share[1]) > 2) == decode


def test_generation_costs_more_flops_with_more_steps_and_videos(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    timing = ProfileConfig(steps=1, warmup=0, trace=tmp_path / "trace.json")
    flops = {}
    for k, b in ((2, 1), (4, 1), (4, 3)):
        profile_generate(
            GenerateProfile(
                model=SMALL, decoder=DECODER, sampling_steps=k, batch_size=b, decode=False, profile=timing
            )
        )
        flops[k, b] = figure(capsys.readouterr().out, "FLOPs a step")
    # K passes over a frame and one over the frame before.
    assert flops[4, 1] / flops[2, 1] == pytest.approx(5 / 3, rel=0.1)
    assert flops[4, 3] / flops[4, 1] == pytest.approx(3, rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["profile"], "needs one of tokenizer, dynamics, clone, imagine, baseline, generate"),
        (["profile", "tokeniser"], "did you mean tokenizer?"),
        (["profile", "tokenizer"], "--data: missing, and needed"),
        (["profile", "dynamics", "--data", "d", "--profile.steps", "0"], "at least 1"),
        (["profile", "dynamics", "--data", "d", "--profile.step", "3"], "did you mean --profile.steps"),
        (["profile", "clone", "--data", "d", "--dynamics", "x", "--preset", "huge"], "--preset huge"),
        (["profile", "tokenizer", "--data", "absent"], "absent"),
        (["profile", "tokenizer", "--data", "d", "--profile.trace", "absent/t.json"], "absent is no folder"),
        (["profile", "generate", "--context", "1"], "context at least 2"),
        (["profile", "generate", "--sampling_steps", "3"], "power of two"),
        (["profile", "generate", "--dynamics", "absent", "--decode", "false"], "absent"),
        (["profile", "generate", "--device", "cuda:99"], "cuda:99"),
    ],
)
def test_bad_flags_are_told_in_one_sentence(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) in (1, 2)
    said = capsys.readouterr().err.strip()
    assert says in said and "\n" not in said and "Traceback" not in said


def test_a_profile_takes_a_stages_preset(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--preset", "nano", "--data", str(corpus.shards), "--objective.lpips_weight", "0"]
    timing = ["--profile.steps", "1", "--profile.warmup", "0", "--profile.trace", str(tmp_path / "t.json")]
    assert main(["profile", "tokenizer", *flags, *timing]) == 0
    assert "profile of tokenizer: 1 steps after 0 of warm-up" in capsys.readouterr().out


def test_a_profile_stays_in_its_own_folder(corpus: Corpus, tmp_path: Path) -> None:
    """A run folder given with --out, as in the command of a training, is left alone."""
    out = corpus.finished("tokenizer")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    config = as_profile(corpus.config("tokenizer", out), tmp_path / "trace.json")
    profile(replace(config, training=replace(config.training, steps=1)))
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert not torch.is_inference_mode_enabled()


def test_operations_count_without_those_they_call(tmp_path: Path) -> None:
    def event(name: str, begin: float, length: float, thread: int = 1) -> dict[str, Any]:
        return {"ph": "X", "cat": "cpu_op", "name": name, "ts": begin, "dur": length, "tid": thread}

    trace = tmp_path / "t.json"
    inner = [event("a", 0, 10), event("b", 1, 4), event("c", 2, 1), event("b", 6, 2), event("a", 20, 5)]
    trace.write_text(json.dumps({"traceEvents": [*reversed(inner), event("c", 0, 30, thread=2)]}))
    found = {name: (calls, round(seconds * 1e6, 6)) for name, calls, seconds in most_expensive(trace, 9)}
    assert found == {"c": (2, 31), "a": (2, 9), "b": (2, 5)}
    kernel = {"ph": "X", "cat": "kernel", "name": "gemm", "ts": 0, "dur": 3, "tid": 7}
    trace.write_text(json.dumps({"traceEvents": [*inner, kernel]}))
    assert [cost.name for cost in most_expensive(trace, 9)] == ["gemm"]


def figure(said: str, name: str) -> float:
    line = next(x for x in said.splitlines() if x.strip().startswith(name))
    return float(line.split(name)[1].split()[0])
