"""LPIPS: the network that its package makes, in another layout; and what bfloat16 convolutions cost."""

import torch
from torch import Tensor

from reverie.tokenizer.perceptual import PerceptualDistance, _network


def pair() -> tuple[Tensor, Tensor]:
    """Smooth images, and the same with an error of a tenth."""
    torch.manual_seed(1)
    a = torch.nn.functional.interpolate(torch.rand(4, 3, 8, 8) * 2 - 1, (64, 64), mode="bilinear")
    return a, (a + 0.1 * torch.randn_like(a)).clamp(-1, 1).requires_grad_()


def gradient(distance: Tensor, image: Tensor) -> Tensor:
    return torch.autograd.grad(distance.sum(), image)[0]


def network(half: bool = False) -> PerceptualDistance:
    torch.manual_seed(0)
    return PerceptualDistance(_network("alex"), half=half)


def test_it_is_the_packages_network() -> None:
    """In float64 from the same weights, without its layout or its wrapper."""
    torch.manual_seed(0)
    plain, (a, b) = _network("alex").eval().double(), pair()
    expected, found = plain(a.double(), b.double()).flatten(), network()(a, b)
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(gradient(found, b), gradient(expected, b), atol=1e-8, rtol=1e-3)


def test_bfloat16_convolutions_are_near() -> None:
    """Distances to 2 %, their gradients to 20 %, and nearer than with everything in bfloat16."""
    a, b = pair()
    exact, half = network()(a, b), network(half=True)(a, b)
    assert half.dtype == torch.float32 and not torch.equal(exact, half)
    assert ((half - exact).abs() / exact).max() < 0.02
    expected, found = gradient(exact, b), gradient(half, b)
    error = (found - expected).norm()
    assert 0 < error < 0.2 * expected.norm()
    torch.manual_seed(0)
    all_half = _network("alex").eval().bfloat16()(a.bfloat16(), b.bfloat16()).flatten()
    assert (half - exact).norm() < 0.5 * (all_half.float() - exact).norm()


def test_autocast_changes_nothing_and_nothing_is_saved() -> None:
    (a, b), distance = pair(), network()
    with torch.autocast("cpu", torch.bfloat16):
        found = distance(a, b)
    assert torch.equal(found, distance(a, b))
    assert not list(distance.parameters()) and not distance.state_dict()
