"""Distributions over an action space: one independent factor per component.

`components` are the parts of `reverie.data.actions.ActionSpace`; nn knows them only by their kind. Categorical: softmax.
Binary: independent Bernoulli per key. Continuous: a Normal whose mean is bounded by tanh and whose deviation lies in
(0.1, 1.0), on the range rescaled to [-1, 1]; samples are not clipped here (games and action embeddings clip).
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from reverie.data.actions import ActionSpace, Categorical, Component, Continuous


def parameter_count(space: ActionSpace) -> int:
    """Number of network outputs that parametrise one action."""
    return sum(_size(component) for component in space.components.values())


def _size(component: Component) -> int:
    return 2 * component.n if isinstance(component, Continuous) else component.n


def scale_continuous(x: Tensor, component: Continuous) -> Tensor:
    """[low, high] -> [-1, 1]."""
    return (x - component.low) * (2 / (component.high - component.low)) - 1


def unscale_continuous(x: Tensor, component: Continuous) -> Tensor:
    """[-1, 1] -> [low, high]."""
    return (x + 1) * ((component.high - component.low) / 2) + component.low


class ActionDistribution:
    """A batch of distributions over actions.

    Args:
      space: the components.
      parameters: (..., parameter_count(space)) network outputs.
    """

    def __init__(self, space: ActionSpace, parameters: Tensor):
        self.space = space
        sizes = [_size(component) for component in space.components.values()]
        parts = parameters.float().split(sizes, dim=-1)
        self.parameters: dict[str, Tensor] = dict(zip(space.components, parts, strict=True))

    def sample(self, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """One action each: component -> (..., *component.shape)."""
        return {n: _sample(c, self.parameters[n], generator) for n, c in self.space.components.items()}

    def mode(self) -> dict[str, Tensor]:
        """The most likely action of each factor."""
        return {n: _mode(c, self.parameters[n]) for n, c in self.space.components.items()}

    def log_prob(self, actions: Mapping[str, Tensor]) -> Tensor:
        """Ln pi(a), (...), summed over components and keys."""
        return _total(
            [_log_prob(c, self.parameters[n], actions[n]) for n, c in self.space.components.items()]
        )

    def entropy(self) -> Tensor:
        """Entropy in nats, (...)."""
        return _total([_entropy(c, self.parameters[n]) for n, c in self.space.components.items()])

    def kl(self, other: "ActionDistribution") -> Tensor:
        """KL[self || other] in nats, (...)."""
        pairs = ((c, self.parameters[n], other.parameters[n]) for n, c in self.space.components.items())
        return _total([_kl(*pair) for pair in pairs])


def _total(terms: list[Tensor]) -> Tensor:
    return torch.stack(terms).sum(0)


def _normal(parameters: Tensor) -> tuple[Tensor, Tensor]:
    mean, deviation = parameters.chunk(2, dim=-1)
    return mean.tanh(), 0.9 * torch.sigmoid(deviation + 2) + 0.1


def _gaussian(parameters: Tensor) -> torch.distributions.Normal:
    # Unchecked: a check of values makes a device wait, and breaks compiled graphs.
    return torch.distributions.Normal(*_normal(parameters), validate_args=False)


def _sample(component: Component, parameters: Tensor, generator: torch.Generator | None) -> Tensor:
    if isinstance(component, Continuous):
        mean, std = _normal(parameters)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        return unscale_continuous(mean + std * noise, component)
    uniform = torch.rand(parameters.shape, generator=generator, device=parameters.device)
    if isinstance(component, Categorical):
        return (parameters - (-uniform.clamp_min(1e-20).log()).clamp_min(1e-20).log()).argmax(
            -1
        )  # Gumbel maximum
    return uniform < parameters.sigmoid()


def _mode(component: Component, parameters: Tensor) -> Tensor:
    if isinstance(component, Continuous):
        return unscale_continuous(_normal(parameters)[0], component)
    return parameters.argmax(-1) if isinstance(component, Categorical) else parameters > 0


def _log_prob(component: Component, parameters: Tensor, action: Tensor) -> Tensor:
    if isinstance(component, Continuous):
        return _gaussian(parameters).log_prob(scale_continuous(action, component)).sum(-1)
    if isinstance(component, Categorical):
        return parameters.log_softmax(-1).gather(-1, action.unsqueeze(-1)).squeeze(-1)
    return -F.binary_cross_entropy_with_logits(parameters, action.to(parameters.dtype), reduction="none").sum(
        -1
    )


def _entropy(component: Component, parameters: Tensor) -> Tensor:
    if isinstance(component, Continuous):
        return _gaussian(parameters).entropy().sum(-1)
    if isinstance(component, Categorical):
        log_p = parameters.log_softmax(-1)
        return -(log_p.exp() * log_p).sum(-1)
    p = parameters.sigmoid()
    return -(p * F.logsigmoid(parameters) + (1 - p) * F.logsigmoid(-parameters)).sum(-1)


def _kl(component: Component, a: Tensor, b: Tensor) -> Tensor:
    if isinstance(component, Continuous):
        return torch.distributions.kl_divergence(_gaussian(a), _gaussian(b)).sum(-1)
    if isinstance(component, Categorical):
        log_p, log_q = a.log_softmax(-1), b.log_softmax(-1)
        return (log_p.exp() * (log_p - log_q)).sum(-1)
    p = a.sigmoid()
    up, down = F.logsigmoid(a) - F.logsigmoid(b), F.logsigmoid(-a) - F.logsigmoid(-b)
    return (p * up + (1 - p) * down).sum(-1)
