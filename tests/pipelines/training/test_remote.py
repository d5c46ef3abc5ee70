"""Commands take the URL of a folder of shards where they take the folder."""

from pathlib import Path

import pytest

from reverie.data.files.location import Url
from reverie.data.shards.index import ShardIndex
from reverie.pipelines.cli import main, parse
from reverie.pipelines.runs.configs import to_plain
from reverie.pipelines.training.metrics import read_metrics
from tests.data.server import serve
from tests.pipelines.small_stages import Corpus


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVERIE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("REVERIE_TIMEOUT", "20")


def test_commands_that_look_at_shards(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with serve(prepared) as server:
        assert main(["info", "--path", server.url]) == 0
        assert f"hash: {ShardIndex.load(prepared).hash()}" in capsys.readouterr().out
        assert main(["data", "info", server.url]) == 0
        assert f"bit-exact: {server.url}" in capsys.readouterr().out
        assert main(["data", "show", server.url, "--clips", "1"]) == 0
        assert (tmp_path / "show.html").is_file()
        assert main(["data", "export", server.url, "--out", "export"]) == 0
        mixture = (
            f"corpora: [{{data: '{server.url}', weight: 3}}, {{data: '{prepared}', labelled_fraction: 0}}]"
        )
        (tmp_path / "mixture.yaml").write_text(mixture)
        capsys.readouterr()
        assert main(["data", "info", "mixture.yaml"]) == 0
        assert server.url in "".join(capsys.readouterr().out.split())
        assert main(["data", "check", server.url]) == 0
        assert "clips are intact" in capsys.readouterr().out
        server.faults = {"train-000001.tar": "missing"}
        for path in (tmp_path / "cache" / "shards").glob("*.tar"):
            path.unlink()
        assert main(["data", "check", server.url]) == 1
        assert "wrong: train-000001.tar: cannot be fetched (there is no such file)" in capsys.readouterr().out
        assert main(["data", "check", server.url, "--repair"]) == 1
        assert "cannot be repaired from here" in capsys.readouterr().err
        assert main(["data", "info", f"{server.url}/other"]) == 1
        assert capsys.readouterr().err == (
            f"reverie: {server.url}/other: holds no index.json; give the URL of a folder of shards, all of whose files "
            f"were copied.\n"
        )


def test_urls_survive_the_command_line() -> None:
    url = "s3://bucket/a//b"
    config = parse("dynamics", ["--data", url, "--out", "runs/x"])
    assert config.data == Url(url) and type(to_plain(config)["data"]) is str
    assert parse("dynamics", ["--data", "runs/a:b/c", "--out", "runs/x"]).data == Path("runs/a:b/c")
    assert parse("data info", [url]).path == Url(url)


def test_a_run_goes_on_with_its_data_elsewhere(corpus: Corpus, tmp_path: Path) -> None:
    """Local, remote, local: the losses are those of a run that never moved."""
    flags = ["tokenizer", "--preset", "nano", "--objective.lpips_weight", "0", "--model.width", "32"]
    flags += ["--batches.batch_size", "2", "--batches.length", "4", "--training.log_every", "1"]
    flags += [
        "--training.evaluate_every",
        "0",
        "--fabric.accelerator",
        "cpu",
        "--batches.long_probability",
        "0",
    ]
    with serve(corpus.shards) as server:
        for steps, place in (("2", str(corpus.shards)), ("4", server.url), ("6", str(corpus.shards))):
            moved = [*flags, "--out", str(tmp_path / "moved"), "--data", place]
            assert main([*moved, "--training.steps", steps]) == 0
    stayed = [*flags, "--out", str(tmp_path / "stayed"), "--data", str(corpus.shards)]
    for steps in ("2", "4", "6"):
        assert main([*stayed, "--training.steps", steps]) == 0
    losses = [
        [row["train/loss"] for row in read_metrics(tmp_path / run / "metrics.jsonl") if "train/loss" in row]
        for run in ("moved", "stayed")
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 6
