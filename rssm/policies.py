"""Policies over any action space, one independent factor per component, on the vectors of `rssm.actions`.

Categorical and binary factors are the same in all generations, with straight-through samples. Ranges have the generation's own:
tanh-transformed Normal (V1), truncated Normal (V2), Normal with bounded mean (V3).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from reverie.data.actions import ActionSpace, Binary, Categorical, Component
from reverie.nn.distributions import parameter_count
from reverie.rssm.config import Generation, TruncatedGradient
from reverie.rssm.heads import HALF_LN_2PI

_INITIAL_STD = math.log(math.expm1(5.0))
_V1_SAMPLES = 100
_ALMOST_1 = 0.99999994  # the largest float32 below 1


class OneHot:
    """One of n classes."""

    def __init__(self, logits: Tensor):
        self.log_p = logits.log_softmax(-1)

    def sample(self) -> Tensor:
        """One-hot with the gradient of the probabilities, (..., n)."""
        p = self.log_p.exp()
        drawn = (p.detach() / torch.empty_like(p).exponential_()).argmax(-1)
        return F.one_hot(drawn, p.shape[-1]).to(p.dtype) + (p - p.detach())

    def mode(self) -> Tensor:
        """The most likely class, one-hot."""
        return F.one_hot(self.log_p.argmax(-1), self.log_p.shape[-1]).to(self.log_p.dtype)

    def log_prob(self, x: Tensor) -> Tensor:
        """Ln p(x), (...), of a class that is given: a straight-through sample brings no gradient along."""
        return (self.log_p * x.detach()).sum(-1)

    def entropy(self) -> Tensor:
        """In nats, (...)."""
        return -(self.log_p.exp() * self.log_p).sum(-1)


class Keys:
    """n independent keys."""

    def __init__(self, logits: Tensor):
        self.logits = logits

    def sample(self) -> Tensor:
        """0 or 1 with the gradient of the probabilities, (..., n)."""
        p = self.logits.sigmoid()
        return torch.bernoulli(p.detach()) + (p - p.detach())

    def mode(self) -> Tensor:
        """The likelier state of each key."""
        return (self.logits > 0).to(self.logits.dtype)

    def log_prob(self, x: Tensor) -> Tensor:
        """Ln p(x), (...), of keys that are given, as in `OneHot`."""
        x = x.detach()
        return (x * F.logsigmoid(self.logits) + (1 - x) * F.logsigmoid(-self.logits)).sum(-1)

    def entropy(self) -> Tensor:
        """In nats, (...)."""
        p = self.logits.sigmoid()
        return -(p * F.logsigmoid(self.logits) + (1 - p) * F.logsigmoid(-self.logits)).sum(-1)


class TanhNormal:
    """V1: tanh of a Normal; mean 5 tanh(raw / 5), deviation softplus(raw + ln(e^5 - 1)) + 1e-4, about 5 at first."""

    def __init__(self, parameters: Tensor):
        mean, raw = parameters.chunk(2, dim=-1)
        self.mean = 5 * torch.tanh(mean / 5)
        self.std = F.softplus(raw + _INITIAL_STD) + 1e-4

    def sample(self) -> Tensor:
        """Reparameterised, in (-1, 1)."""
        return torch.tanh(self.mean + self.std * torch.randn_like(self.mean))

    @torch.no_grad()
    def mode(self) -> Tensor:
        """The most likely of 100 samples."""
        samples = torch.stack([self.sample() for _ in range(_V1_SAMPLES)])
        best = torch.stack([self.log_prob(x) for x in samples]).argmax(0)
        return samples.gather(0, best[None, ..., None].expand(1, *samples.shape[1:]))[0]

    def log_prob(self, x: Tensor) -> Tensor:
        """Ln p(x), (...), by the density of the Normal and the slope of tanh."""
        before = torch.atanh(x.clamp(-_ALMOST_1, _ALMOST_1))
        slope = 2 * (math.log(2) - before - F.softplus(-2 * before))
        return (_normal_log_prob(before, self.mean, self.std) - slope).sum(-1)

    def entropy(self) -> Tensor:
        """Estimated by 100 samples, (...)."""
        return -torch.stack([self.log_prob(self.sample()) for _ in range(_V1_SAMPLES)]).mean(0)


class TruncatedNormal:
    """V2: Normal cut to [-1, 1]; mean tanh(raw), deviation 2 sigmoid(raw / 2) + 0.1.

    Args:
      parameters: (..., 2 n), raw means, then raw deviations.
      gradient: of samples x = mean + deviation z; exact: z moves with the ends of the interval; released: it does not.
    """

    def __init__(self, parameters: Tensor, gradient: TruncatedGradient = "exact"):
        self.gradient = gradient
        mean, raw = parameters.chunk(2, dim=-1)
        self.mean, self.std = mean.tanh(), 2 * torch.sigmoid(raw / 2) + 0.1
        self.low, self.high = (-1 - self.mean) / self.std, (1 - self.mean) / self.std
        self.below = _normal_cdf(self.low)
        self.mass = _normal_cdf(self.high) - self.below

    def sample(self) -> Tensor:
        """By the inverse distribution function, reparameterised; clipped to +-(1 - 1e-6), gradients pass."""
        uniform = torch.rand_like(self.mean)
        level = (self.below + uniform * self.mass).clamp(1e-7, 1 - 1e-7)
        z = math.sqrt(2) * torch.erfinv(2 * level - 1)
        x = self.mean + self.std * (z.detach() if self.gradient == "released" else z)
        return x + (x.clamp(-1 + 1e-6, 1 - 1e-6) - x).detach()

    def mode(self) -> Tensor:
        """The mean of the Normal before the cut."""
        return self.mean

    def log_prob(self, x: Tensor) -> Tensor:
        """Ln p(x), (...)."""
        return (_normal_log_prob(x, self.mean, self.std) - self.mass.log()).sum(-1)

    def entropy(self) -> Tensor:
        """In nats, (...)."""
        edges = self.low * _normal_pdf(self.low) - self.high * _normal_pdf(self.high)
        whole = HALF_LN_2PI + 0.5 + (self.std * self.mass).log()
        return (whole + edges / (2 * self.mass)).sum(-1)


class BoundedNormal:
    """V3: Normal with mean tanh(raw) and deviation 0.9 sigmoid(raw + 2) + 0.1; samples may leave [-1, 1]."""

    def __init__(self, parameters: Tensor):
        mean, raw = parameters.chunk(2, dim=-1)
        self.mean, self.std = mean.tanh(), 0.9 * torch.sigmoid(raw + 2) + 0.1

    def sample(self) -> Tensor:
        """Reparameterised."""
        return self.mean + self.std * torch.randn_like(self.mean)

    def mode(self) -> Tensor:
        """The mean."""
        return self.mean

    def log_prob(self, x: Tensor) -> Tensor:
        """Ln p(x), (...)."""
        return _normal_log_prob(x, self.mean, self.std).sum(-1)

    def entropy(self) -> Tensor:
        """In nats, (...)."""
        return (HALF_LN_2PI + 0.5 + self.std.log()).sum(-1)


Factor = OneHot | Keys | TanhNormal | TruncatedNormal | BoundedNormal


class Policy:
    """A batch of policies.

    Args:
      generation: whose distribution ranges have.
      space: the components.
      parameters: (..., parameter_count(space)) the actor's outputs.
      gradient: see `TruncatedNormal`.
    """

    def __init__(
        self,
        generation: Generation,
        space: ActionSpace,
        parameters: Tensor,
        gradient: TruncatedGradient = "exact",
    ):
        components = list(space.components.values())
        self.sizes = [component.n for component in components]
        parts = parameters.float().split(policy_sizes(space), dim=-1)
        self.factors = [_factor(generation, gradient, c, x) for c, x in zip(components, parts, strict=True)]

    def sample(self) -> Tensor:
        """Actions (..., A) with gradient to the parameters."""
        return torch.cat([factor.sample() for factor in self.factors], dim=-1)

    def mode(self) -> Tensor:
        """The most likely actions (..., A)."""
        return torch.cat([factor.mode() for factor in self.factors], dim=-1)

    def log_prob(self, actions: Tensor) -> Tensor:
        """Ln pi(a) (...) of (..., A), summed over components."""
        parts = actions.split(self.sizes, dim=-1)
        return torch.stack([f.log_prob(x) for f, x in zip(self.factors, parts, strict=True)]).sum(0)

    def entropy(self) -> Tensor:
        """In nats, (...)."""
        return torch.stack([factor.entropy() for factor in self.factors]).sum(0)


def policy_sizes(space: ActionSpace) -> list[int]:
    """Parameters of each component's factor."""
    return [parameter_count(ActionSpace({name: c})) for name, c in space.components.items()]


def _factor(
    generation: Generation, gradient: TruncatedGradient, component: Component, parameters: Tensor
) -> Factor:
    if isinstance(component, Categorical):
        return OneHot(parameters)
    if isinstance(component, Binary):
        return Keys(parameters)
    if generation == "v2":
        return TruncatedNormal(parameters, gradient)
    return TanhNormal(parameters) if generation == "v1" else BoundedNormal(parameters)


def _normal_log_prob(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return -0.5 * ((x - mean) / std).square() - std.log() - HALF_LN_2PI


def _normal_pdf(x: Tensor) -> Tensor:
    return torch.exp(-0.5 * x.square() - HALF_LN_2PI)


def _normal_cdf(x: Tensor) -> Tensor:
    return 0.5 * (1 + torch.erf(x / math.sqrt(2)))
