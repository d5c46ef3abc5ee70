"""The lock of a folder: one holder, whatever dies, and one sentence where it cannot be had."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from reverie.data.errors import UserError
from reverie.data.files.lock import LOCK, sole_writer
from tests.processes import start

BUSY = "another process is writing here"


def test_nothing_stays_in_a_folder_that_was_only_locked(tmp_path: Path) -> None:
    with sole_writer(tmp_path / "new"):
        assert (tmp_path / "new" / LOCK).exists()
    assert list((tmp_path / "new").iterdir()) == []


def test_a_second_part_of_the_same_process_is_refused_and_takes_nothing_away(tmp_path: Path) -> None:
    with sole_writer(tmp_path):
        for _ in range(2):
            with pytest.raises(UserError, match=BUSY), sole_writer(tmp_path):
                pass
        assert _exit_code_of_another(tmp_path) == 3, "closing any handle of a file gives up a lock on it"
    assert _exit_code_of_another(tmp_path) == 0
    with sole_writer(tmp_path):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    process = start(_die_inside, tmp_path)
    process.join(60)
    assert process.exitcode == 9 and (tmp_path / LOCK).exists()
    with sole_writer(tmp_path):
        pass
    assert not (tmp_path / LOCK).exists()


def test_a_lock_that_was_deleted_while_one_waited_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lockf, tries = fcntl.lockf, []

    def slowly(*arguments: object) -> None:
        if not tries:  # its owner goes between our opening and our locking, and another one comes
            (tmp_path / LOCK).unlink()
            (tmp_path / LOCK).touch()
        tries.append(1)
        lockf(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(fcntl, "lockf", slowly)
    with sole_writer(tmp_path):
        assert len(tries) == 2 and _exit_code_of_another(tmp_path) == 3


def test_a_file_system_without_locks_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with sole_writer(tmp_path):
        pass
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "has no locks" in said and "start only one" in said


@pytest.mark.parametrize("place", ["/proc/run", "/sys/run", "/dev/null/run"])
def test_a_folder_that_cannot_be_written_is_one_sentence(place: str) -> None:
    with pytest.raises(UserError, match=f"{place}: cannot be written") as raised, sole_writer(Path(place)):
        pass
    assert "\n" not in str(raised.value)


def test_a_folder_in_the_place_of_the_lock_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / LOCK).mkdir()
    with pytest.raises(UserError, match="cannot be written"), sole_writer(tmp_path):
        pass


def _exit_code_of_another(folder: Path) -> int:
    process = start(_try, folder)
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode


def _try(folder: Path) -> None:
    try:
        with sole_writer(folder):
            os._exit(0)
    except UserError:
        os._exit(3)


def _die_inside(folder: Path) -> None:
    with sole_writer(folder):
        os._exit(9)
