"""`prepare` on a real Ray cluster of this machine: the same bytes as without, whatever is killed. Skipped without Ray."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reverie.data.errors import UserError
from reverie.pipelines.datasets.planning import STAGING
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
from tests.data.corpus import write_recording
from tests.data.shards.test_shards import contents

ROOT = Path(__file__).parents[3]
MARK = "REVERIE_TEST_CLUSTER"
PREPARE = """
import sys
from pathlib import Path
from reverie.pipelines.datasets.prepare import PrepareConfig, prepare
prepare(PrepareConfig(source=Path(sys.argv[1]), out=Path(sys.argv[2]), clip_length=20, shard_mb=0.02, ray=sys.argv[3]))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_recording(tmp_path_factory.mktemp("raw"), [60] * 12)
    (folder / "episodes" / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed")
    prepare(PrepareConfig(source=source, out=out, clip_length=20, shard_mb=0.02, workers=1))
    return contents(out)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Its address; two cores, stopped at the end."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    environment = {
        MARK: str(os.getpid()),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        "OMP_NUM_THREADS": "1",
    }
    os.environ |= environment
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield made.address
    made.shutdown()


def start(source: Path, out: Path, address: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", PREPARE, str(source), str(out), address], cwd=ROOT)


def staged(out: Path) -> int:
    return len([path for path in (out / STAGING).glob("*") if not path.name.startswith(".")])


@pytest.mark.slow
def test_the_same_bytes(source: Path, undisturbed: dict[str, bytes], tmp_path: Path, cluster: str) -> None:
    assert start(source, tmp_path, cluster).wait(120) == 0
    assert contents(tmp_path) == undisturbed


@pytest.mark.slow
def test_kill_the_head_and_continue(
    source: Path, undisturbed: dict[str, bytes], tmp_path: Path, cluster: str
) -> None:
    process = start(source, tmp_path, cluster)
    while process.poll() is None and staged(tmp_path) < 3:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (tmp_path / "index.json").exists()
    assert start(source, tmp_path, cluster).wait(120) == 0
    assert contents(tmp_path) == undisturbed


@pytest.mark.slow
def test_a_killed_worker_is_replaced(
    source: Path, undisturbed: dict[str, bytes], tmp_path: Path, cluster: str
) -> None:
    process = start(source, tmp_path, cluster)
    killed: set[int] = set()
    while process.poll() is None and len(killed) < 2:
        for pid in busy_workers() - killed:
            if staged(tmp_path) > len(killed):
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
                break
        time.sleep(0.001)
    assert process.wait(120) == 0 and len(killed) == 2
    assert contents(tmp_path) == undisturbed


def busy_workers() -> set[int]:
    """Processes of our cluster that name themselves after the task they run."""
    ours, found = f"{MARK}={os.getpid()}".encode(), set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            busy = (entry / "cmdline").read_bytes().startswith(b"ray::_run")
            if busy and ours in (entry / "environ").read_bytes().split(b"\0"):
                found.add(int(entry.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_a_cluster_that_does_not_answer(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(UserError, match=r"--ray 127.0.0.1:1: no cluster answers there"):
        prepare(PrepareConfig(source=source, out=tmp_path, ray="127.0.0.1:1"))


def test_without_ray_it_is_one_sentence(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"needs the package ray; run `pip install 'reverie\[ray\]'`"):
        prepare(PrepareConfig(source=source, out=tmp_path, ray="auto"))
