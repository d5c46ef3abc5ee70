"""Runs over seeds: t intervals over runs, gains within runs."""

from math import sqrt

import pytest

from reverie.evaluation.seeds import markdown, over_seeds


def report(psnr: float, lead: float, success: dict[str, float]) -> dict[str, object]:
    players = [
        {"player": name, "success": {"goal": {"value": rate}}, "return": {"value": 2 * rate}}
        for name, rate in success.items()
    ]
    return {
        "reconstruction": {"scores": {"psnr": {"value": psnr}}},
        "rollouts": {"advantage": {"copy": {"average": {"value": lead}}}},
        "games": {"task": "goal", "players": players},
    }


def test_figures_are_means_over_runs_and_gains_are_paired() -> None:
    rates = [(0.0, 0.4, 0.6), (0.1, 0.7, 0.9), (0.0, 0.2, 0.4)]
    runs = [
        report(30 + i, 2.0, dict(zip(("random", "cloning", "imagination"), r, strict=True)))
        for i, r in enumerate(rates)
    ]
    found = over_seeds(runs)
    psnr = found["tokenizer PSNR, dB"]
    assert psnr.value == 31 and psnr.n == 3
    assert psnr.high - psnr.value == pytest.approx(4.302653 / sqrt(3), abs=1e-5)  # t(0.975, 2), s = 1
    assert found["goal %: cloning"].value == pytest.approx(100 * 1.3 / 3)
    gain = found["goal: imagination - cloning, points"]
    assert gain.value == pytest.approx(20) and gain.high - gain.low == pytest.approx(0, abs=1e-9)
    assert found["return: cloning"].value == pytest.approx(2 * 1.3 / 3)
    assert found["return: imagination - cloning"].value == pytest.approx(0.4)
    assert "| rollouts against copy, dB | 2.00 [2.00, 2.00] | 3 |" in markdown(found)


def test_baselines_are_compared_with_dreamer_4_within_runs() -> None:
    runs = []
    for i, (psnr, rate) in enumerate([(27.0, 0.9), (25.0, 1.0)]):
        success = {"random": 0.2, "v3": rate - 0.3, "cloning": 0.5, "imagination": rate}
        models = {"dreamer 4": psnr, "v3": psnr - 2 - i}
        figures = {name: {"averages": {"psnr": value}} for name, value in models.items()}
        runs.append(report(30, 1, success) | {"world_models": figures})
    found = over_seeds(runs)
    assert found["rollouts of v3: PSNR, dB"].value == pytest.approx(23.5)
    assert found["rollouts: dreamer 4 - v3, dB"].value == pytest.approx(2.5)
    gain = found["goal: imagination - v3, points"]
    assert gain.value == pytest.approx(30) and gain.high - gain.low == pytest.approx(0, abs=1e-9)
    assert found["return: imagination - v3"].value == pytest.approx(0.6)


def test_reports_of_baselines_alone_are_pooled() -> None:
    runs = [report(30, 1, {"random": 0.1, "v1": 0.3}) for _ in range(2)]
    for run in runs:
        del run["reconstruction"], run["rollouts"]
        run["world_models"] = {"v1": {"averages": {"psnr": 20.0}}}
    found = over_seeds(runs)
    assert list(found) == [
        "rollouts of v1: PSNR, dB",
        "goal %: random",
        "goal %: v1",
        "return: random",
        "return: v1",
    ]


def test_players_that_a_run_lacks_are_left_out() -> None:
    runs = [report(30, 1, {"random": 0.1, "expert": 1.0}), report(31, 1, {"random": 0.2})]
    found = over_seeds(runs)
    assert "goal %: random" in found and "goal %: expert" not in found
