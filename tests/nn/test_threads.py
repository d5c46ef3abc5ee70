"""Threads: small models get one, large ones all; a user's number stands; waiting threads sleep."""

import os
import subprocess
import sys

import pytest
import torch

from reverie.nn.threads import ELEMENTS_PER_THREAD, shared_out, threads_for


@pytest.mark.parametrize(
    ("share", "available", "expected"),
    [(0, 8, 1), (0.5, 8, 1), (1.9, 8, 1), (2, 8, 2), (5.5, 8, 5), (100, 8, 8), (100, 1, 1), (2, 0, 1)],
)
def test_a_thread_is_added_for_every_share_of_elements(share: float, available: int, expected: int) -> None:
    assert threads_for(int(share * ELEMENTS_PER_THREAD), available) == expected


def test_the_number_of_threads_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with shared_out(0):
            assert torch.get_num_threads() == 1
        with pytest.raises(RuntimeError), shared_out(100 * ELEMENTS_PER_THREAD):
            assert torch.get_num_threads() == 2
            raise RuntimeError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_number_given_by_the_user_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    before = torch.get_num_threads()
    with shared_out(0):
        assert torch.get_num_threads() == before


@pytest.mark.parametrize(("given", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_the_command_line_lets_waiting_threads_sleep_before_torch_is_there(
    given: str | None, expected: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path)}
    environment |= {} if given is None else {"OMP_WAIT_POLICY": given}
    program = (
        "import os, sys; from reverie.pipelines.cli import main; main(['--version']);"
        "print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.stdout.split()[-2:] == [expected, "False"], done.stderr
