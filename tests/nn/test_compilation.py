"""What compiles: the reason where nothing can, the line that tells, the place of the cache, no silent fallbacks."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from reverie.data.errors import UserError
from reverie.nn import compilation
from reverie.nn.compilation import cannot_compile, compiled, use_compile

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    cannot_compile.cache_clear()
    yield
    cannot_compile.cache_clear()
    torch._dynamo.reset()


def test_this_machine_can_or_says_why_not() -> None:
    reason = cannot_compile(CPU)
    assert reason is None or "compiler" in reason


def test_no_compiler_is_a_reason_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert cannot_compile(CPU) == "there is no C++ compiler (no-such-compiler)"
    assert not use_compile("auto", CPU, pays=True)
    with pytest.raises(UserError, match="--training.compile on: there is no C.. compiler"):
        use_compile("on", CPU, pays=False)


@pytest.mark.parametrize(
    ("script", "reason"),
    [("exit 1", "does not find"), ("kill -9 $$", "does not run"), ("", None)],
    ids=["fails", "dies", "works"],
)
def test_a_compiler_is_tried(
    script: str, reason: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "c++"
    fake.write_text(f"#!/bin/sh\ncat > /dev/null\n{script}\n")
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(fake))
    found = cannot_compile(CPU)
    assert found == reason or (reason and found and reason in found)


def test_headers_of_python_are_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if cannot_compile(CPU) is not None:
        pytest.skip("no compiler here")
    cannot_compile.cache_clear()
    monkeypatch.setattr(compilation.sysconfig, "get_path", lambda _: str(tmp_path))
    assert "does not find Python.h" in str(cannot_compile(CPU))


def test_auto_asks_whether_it_pays_and_off_never_does() -> None:
    assert not use_compile("auto", CPU, pays=False)
    assert not use_compile("off", CPU, pays=True)
    assert use_compile("auto", CPU, pays=True) == (cannot_compile(CPU) is None)
    with pytest.raises(UserError, match="not used on mps"):
        use_compile("on", torch.device("mps"), pays=True)


def test_each_set_of_shapes_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    double = compiled(lambda x: x * 2, "doubling", backend="eager")
    for size in (3, 3, 4, 3, 4):
        assert double(torch.ones(size)).tolist() == [2.0] * size
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("compiling doubling ... ") and line.endswith(" s") for line in lines)


def _breaks(x: Tensor) -> Tensor:
    return x + 1 if x.sum().item() > 0 else x


def test_a_graph_that_breaks_is_told_and_runs_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    run = compiled(_breaks, "breaking", backend="eager")
    assert run(torch.ones(2)).tolist() == [2.0, 2.0]
    assert run(-torch.ones(2)).tolist() == [-1.0, -1.0]
    told = [line for line in capsys.readouterr().err.splitlines() if "is not compiled" in line]
    assert len(told) == 1
    with pytest.raises(UserError, match="breaking cannot be compiled"):
        compiled(_breaks, "breaking", required=True, backend="eager")(torch.ones(2))


def test_errors_of_the_function_itself_pass(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(IndexError):
        compiled(lambda x, i: x[i], "indexing", backend="eager")(torch.ones(2), torch.tensor([5]))


def test_the_cache_lies_in_the_users_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVERIE_CACHE", str(tmp_path))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    compilation._prepare.__wrapped__()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "compiled")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/chosen")
    compilation._prepare.__wrapped__()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/chosen"


def test_a_cache_folder_that_cannot_be_made_leaves_torchs_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("REVERIE_CACHE", str(tmp_path / "file"))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    compilation._prepare.__wrapped__()
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ


@pytest.mark.slow
def test_code_is_made_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := cannot_compile(CPU):
        pytest.skip(reason)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    x = torch.randn(8, 16, requires_grad=True)
    run = compiled(lambda x: (x.tanh() * x).sum(), "a sum", required=True)
    run(x).backward()
    expected = torch.autograd.grad((x.tanh() * x).sum(), x)[0]
    torch.testing.assert_close(x.grad, expected)
    assert any(tmp_path.rglob("*.so"))
