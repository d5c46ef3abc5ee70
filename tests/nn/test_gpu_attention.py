"""Every kernel of a GPU against the formula; those that this machine has not are skipped in the words of the refusal."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from reverie.data.errors import UserError
from reverie.nn.attention import attend
from tests.nn.attention_cases import CASES, with_gradients, written_out

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("softcap", [2.0, None])
@pytest.mark.parametrize("backend", ["math", "sdpa", "flex", "flash", "auto"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_outputs_and_gradients_match_the_formula(case, softcap, backend, dtype):
    """With heads of 64."""
    case = replace(case, head_dim=64)
    inputs = case.tensors(dtype, "cuda")
    run = partial(attend, visible=case.visible("cuda"), softcap=softcap, backend=backend)
    try:
        found = with_gradients(run, *inputs)
    except UserError as error:
        pytest.skip(str(error))
    exact = with_gradients(lambda q, k, v: written_out(case, q, k, v, softcap), *(x.cpu() for x in inputs))
    tolerance = 5e-2 if dtype == torch.bfloat16 else 5e-4
    for actual, expected in zip(found, exact, strict=True):
        scale = float(expected.abs().max()) or 1.0
        difference = (actual.double().cpu() - expected.double()).abs().max() / scale
        assert difference < tolerance, float(difference)


@pytest.mark.parametrize("backend", ["math", "sdpa", "flex", "flash"])
@torch.no_grad()
def test_hidden_frames_change_nothing(backend):
    case = replace(next(case for case in CASES if case.name == "segments"), head_dim=64)
    q, k, v = case.tensors(torch.bfloat16, "cuda")
    run = partial(attend, visible=case.visible("cuda"), softcap=None, backend=backend)
    try:
        before = run(q, k, v)
    except UserError as error:
        pytest.skip(str(error))
    for j in range(case.keys):
        changed = v.clone()
        changed[..., j, :] += 100
        after = run(q, k, changed)
        for row in range(case.rows):
            same = [torch.equal(before[row, ..., i, :], after[row, ..., i, :]) for i in range(case.queries)]
            assert same == [not case.sees(row, i, j) for i in range(case.queries)]
