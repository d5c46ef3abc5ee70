"""`reverie data check`: each damage is found and named, and repair keeps everything that is whole."""

import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from reverie.data.errors import UserError
from reverie.data.shards.checking import all_samples, check_clip
from reverie.data.shards.index import Sample, ShardIndex
from reverie.data.shards.reader import ShardReader
from reverie.pipelines.cli import main


def first(folder: Path, n: int = 32) -> Sample:
    """The first clip of full length."""
    return next(sample for sample in all_samples(ShardIndex.load(folder)) if sample.n == n)


def flip(path: Path, offset: int, count: int = 1) -> None:
    content = bytearray(path.read_bytes())
    for i in range(offset, offset + count):
        content[i] ^= 0xFF
    path.write_bytes(content)


def keys(folder: Path) -> set[str]:
    return {sample.key for sample in all_samples(ShardIndex.load(folder))}


def test_whole_shards_pass(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "--path", str(shards)]) == 0
    assert "16 of 16 clips are intact" in capsys.readouterr().out
    before = (shards / "index.json").read_bytes()
    assert main(["data", "check", "--repair", str(shards)]) == 0
    assert main(["data", "check", str(shards), "--repair"]) == 0
    assert (shards / "index.json").read_bytes() == before and not (shards / "index.json.bak").exists()


@pytest.mark.parametrize("member", ["clip.mp4", "steps.npz", "meta.json"])
def test_flipped_bytes_are_found_and_dropped(
    member: str, shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample, before = first(shards), keys(shards)
    offset, size = sample.members[member]
    flip(shards / sample.shard, offset + size // 2)
    assert main(["data", "check", str(shards)]) == 1
    captured = capsys.readouterr()
    assert f"wrong: {sample.shard}: has sha256" in captured.out
    assert f"wrong: {sample.shard}: {sample.key}: " in captured.out
    assert len(captured.err.strip().splitlines()) == 1
    assert main(["data", "check", str(shards), "--repair"]) == 0
    assert sample.key in capsys.readouterr().out
    assert keys(shards) == before - {sample.key}
    assert (shards / "index.json.bak").is_file()
    assert main(["data", "check", str(shards)]) == 0


def test_damaged_header_hides_no_later_clip(shards: Path) -> None:
    sample, before = first(shards), keys(shards)
    flip(shards / sample.shard, sample.members["clip.mp4"][0] - 512, 16)
    assert main(["data", "check", str(shards)]) == 1
    assert main(["data", "check", str(shards), "--repair"]) == 0
    assert keys(shards) == before - {sample.key}


def test_truncated_tar(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = ShardIndex.load(shards)
    last = [s for s in index.samples("train") if s.shard == "train-000000.tar"][-1]
    path, before = shards / last.shard, keys(shards)
    path.write_bytes(path.read_bytes()[: last.members["steps.npz"][0] + 10])
    assert main(["data", "check", str(shards)]) == 1
    text = capsys.readouterr().out
    assert "train-000000.tar: has" in text and f"{last.key}: the tar holds no whole steps.npz" in text
    assert main(["data", "check", str(shards), "--repair"]) == 0
    assert keys(shards) == before - {last.key}
    assert main(["data", "check", str(shards)]) == 0


def test_missing_shard(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shards / "train-000000.tar").unlink()
    assert main(["data", "check", str(shards)]) == 1
    assert "wrong: train-000000.tar: is missing" in capsys.readouterr().out


def test_wrong_checksum_offset_and_meta(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original = (shards / "index.json").read_bytes()
    content = json.loads(original)
    content["shards"][0]["sha256"] = "0" * 64
    content["samples"][0]["members"]["steps.npz"][0] += 512
    content["samples"][1]["start"] += 1
    (shards / "index.json").write_text(json.dumps(content))
    assert main(["data", "check", str(shards)]) == 1
    text = capsys.readouterr().out
    assert "the index says 000000000000..." in text
    assert f"{content['samples'][0]['key']}: steps.npz lies at" in text
    assert f"{content['samples'][1]['key']}: meta.json has start" in text
    assert main(["data", "check", str(shards), "--repair"]) == 0
    assert (shards / "index.json").read_bytes() == original
    assert json.loads((shards / "index.json.bak").read_text()) == content


def test_foreign_members_are_named(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = shards / "train-000000.tar"
    with tarfile.open(path, "a") as archive:
        for name in ("../evil.clip.mp4", "/etc/evil"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(link)
    assert main(["data", "check", str(shards)]) == 1
    text = capsys.readouterr().out
    assert all(f"holds {name!r}" in text for name in ("../evil.clip.mp4", "/etc/evil", "link"))
    before = keys(shards)
    assert main(["data", "check", str(shards), "--repair"]) == 0
    assert keys(shards) == before and not (tmp_path / "evil.clip.mp4").exists()


def test_shard_names_in_the_index_stay_in_the_folder(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((shards / "index.json").read_text())
    content["shards"][0]["name"] = content["samples"][0]["shard"] = "../secret.tar"
    (shards / "index.json").write_text(json.dumps(content))
    assert main(["data", "check", str(shards)]) == 1
    assert "'../secret.tar' should be the plain name of a tar in the folder" in capsys.readouterr().out


def test_deleted_index_is_rebuilt(shards: Path, recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original = json.loads((shards / "index.json").read_text())
    (shards / "index.json").unlink()
    assert main(["data", "check", str(shards), "--repair"]) == 1
    assert "give the source's actions.json or recording.json as --actions" in capsys.readouterr().err
    declaration = ["--actions", str(recording / "recording.json")]
    assert main(["data", "check", str(shards), "--repair", *declaration]) == 0
    rebuilt = json.loads((shards / "index.json").read_text())
    for name in set(original) - {"identity", "quality", "storage_mse"}:
        assert rebuilt[name] == original[name], name
    assert main(["data", "check", str(shards)]) == 0
    assert main(["data", "info", str(shards)]) == 0 and "unknown loss" in capsys.readouterr().out


@pytest.mark.parametrize("field", ["samples", "shards", "fps", "splits"])
def test_index_without_a_field_is_one_line(
    field: str, shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((shards / "index.json").read_text())
    (shards / "index.json").write_text(json.dumps({k: v for k, v in content.items() if k != field}))
    assert main(["data", "check", str(shards)]) == 1
    assert f"index.json: is damaged ({field}: field required)" in capsys.readouterr().err


@pytest.mark.parametrize("member", ["clip.mp4", "steps.npz", "meta.json"])
def test_no_flipped_byte_ends_in_a_traceback(member: str, prepared: Path, tmp_path: Path) -> None:
    sample = first(prepared)
    shutil.copy(prepared / "index.json", tmp_path)
    offset, size = sample.members[member]
    original = (prepared / sample.shard).read_bytes()
    found = 0
    for place in np.random.default_rng(0).integers(offset, offset + size, 40):
        (tmp_path / sample.shard).write_bytes(original)
        flip(tmp_path / sample.shard, int(place))
        try:
            check_clip(ShardReader(ShardIndex.load(tmp_path)), sample)
        except UserError as error:
            found += 1
            assert sample.key in str(error)
    assert found > 20, "most damage is seen in the clip itself, all of it in the shard's checksum"


def test_damaged_index_is_rebuilt_from_its_copy(shards: Path) -> None:
    original = (shards / "index.json").read_bytes()
    shutil.copy(shards / "index.json", shards / "index.json.bak")
    (shards / "index.json").write_bytes(original[:100])
    assert main(["data", "check", str(shards)]) == 1
    assert main(["data", "check", str(shards), "--repair"]) == 0
    assert (shards / "index.json").read_bytes() == original == (shards / "index.json.bak").read_bytes()


def test_plain_video_needs_no_declaration(unlabelled: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(unlabelled, tmp_path / "copy"))
    original = json.loads((folder / "index.json").read_text())
    (folder / "index.json").unlink()
    assert main(["data", "check", str(folder), "--repair"]) == 0
    rebuilt = json.loads((folder / "index.json").read_text())
    assert rebuilt == {k: original[k] for k in original if k not in ("quality", "storage_mse")} | {
        "identity": {}
    }
