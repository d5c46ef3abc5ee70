"""What `python -m benchmarks.play` says is what happened: servers in processes of their own, real sockets."""

from pathlib import Path

import pytest

from benchmarks.play import main, quantile


def test_quantiles_are_values_that_occurred() -> None:
    values = [float(x) for x in (5, 1, 3, 2, 4)]
    assert [quantile(values, share) for share in (0.0, 0.5, 0.95, 1.0)] == [1, 3, 5, 5]
    assert quantile([7.0], 0.95) == 7


@pytest.mark.slow
def test_one_visitor_two_and_clients_that_mean_no_good(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "table.md"
    words = ("--world", "minigrid", "--frames", "10", "--visitors", "2", "--hostile", "30", "--out", str(out))
    alone, both = main(list(words))
    assert (alone.visitors, alone.frames, len(alone.waits)) == (1, 10, 10)
    assert (both.visitors, both.frames) == (2, 20)
    for row in (alone, both):
        assert 0 < row.ready[0] < row.first and row.cpu > 0 and min(row.waits) > 0
        assert max(row.memory) - min(row.memory) < 50e6
    text = out.read_text()
    assert "127 hostile connections of 7 kinds" in text and text in capsys.readouterr().out
