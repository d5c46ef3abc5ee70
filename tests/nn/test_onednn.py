"""oneDNN multiplies float32 where it is exact, for whom it pays, and leaves no trace."""

from collections.abc import Iterator

import pytest
import torch

from reverie.nn import onednn
from reverie.nn.onednn import onednn_is_exact, onednn_products
from reverie.nn.transformer import BlockCausalTransformer, TransformerConfig

CPU = torch.device("cpu")


def transformer(**settings: object) -> BlockCausalTransformer:
    sizes = dict(width=128, depth=4, num_heads=4, num_kv_heads=2, context_length=4)
    return BlockCausalTransformer(TransformerConfig(**(sizes | settings)))


@pytest.fixture(autouse=True)
def on_amd(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(onednn, "mkl_is_slow", lambda: True)
    onednn_is_exact.cache_clear()
    yield
    onednn_is_exact.cache_clear()


def inside(model: torch.nn.Module, device: torch.device = CPU) -> str:
    with onednn_products(model, device):
        return torch.get_float32_matmul_precision()


def test_it_is_used_where_it_is_exact() -> None:
    assert inside(transformer()) == ("medium" if onednn_is_exact() else "highest")
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_machine_that_would_round_goes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    true_matmul = torch.Tensor.__matmul__

    def rounding(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if x.dtype == torch.float32 and torch.get_float32_matmul_precision() == "medium":
            return true_matmul(x.bfloat16().float(), y.bfloat16().float())
        return true_matmul(x, y)

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounding)
    assert not onednn_is_exact()
    assert inside(transformer()) == "highest"


def test_the_setting_returns_after_an_error_too() -> None:
    with pytest.raises(KeyError), onednn_products(transformer(), CPU):
        raise KeyError
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize(
    "model",
    [
        torch.nn.Linear(4, 4),
        transformer(width=96),
        transformer(softcap=None),
        transformer(softcap=None, backend="sdpa"),
    ],
)
def test_models_that_lose_by_it_go_without(model: torch.nn.Module) -> None:
    assert inside(model) == "highest"


def test_other_devices_and_processors_go_without(monkeypatch: pytest.MonkeyPatch) -> None:
    assert inside(transformer(), torch.device("cuda")) == "highest"
    monkeypatch.setattr(onednn, "mkl_is_slow", lambda: False)
    assert inside(transformer()) == "highest"


def test_gradients_are_as_close_to_float64_as_with_mkl() -> None:
    if not onednn_is_exact():
        pytest.skip("oneDNN rounds on this machine")
    torch.manual_seed(0)
    model, x = transformer(), torch.randn(4, 8, 20, 128)
    weight, groups = torch.randn(4, 8, 20, 128), [(slice(None), slice(None))]

    def gradients(model: BlockCausalTransformer, x: torch.Tensor) -> torch.Tensor:
        grads = torch.autograd.grad((model(x, groups) * weight.to(x)).sum(), list(model.parameters()))
        return torch.cat([g.flatten() for g in grads]).double()

    plain = gradients(model, x)
    with onednn_products(model, CPU):
        other = gradients(model, x)
    exact = gradients(model.double(), x.double())
    errors = [float((g - exact).norm() / exact.norm()) for g in (plain, other)]
    assert errors[1] < max(2 * errors[0], 1e-6)
