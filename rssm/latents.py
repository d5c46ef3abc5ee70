"""The two kinds of stochastic state: how network outputs become samples and how far two distributions lie apart."""

import torch
import torch.nn.functional as F
from torch import Tensor


class GaussianLatent:
    """V1: independent normals with deviation softplus(raw) + 0.1. Parameters (..., 2 S): mean, raw deviation."""

    def __init__(self, size: int):
        self.size = size
        self.num_parameters = 2 * size

    def sample(self, parameters: Tensor) -> Tensor:
        """Reparameterised sample, (..., S)."""
        mean, std = self._split(parameters)
        return mean + std * torch.randn_like(mean)

    def mode(self, parameters: Tensor) -> Tensor:
        """The mean, (..., S)."""
        return self._split(parameters)[0]

    def kl(self, q: Tensor, p: Tensor) -> Tensor:
        """KL(q || p) in nats, summed over dimensions, (...)."""
        (q_mean, q_std), (p_mean, p_std) = self._split(q), self._split(p)
        ratio = (q_std / p_std).square()
        distance = ((q_mean - p_mean) / p_std).square()
        return 0.5 * (ratio + distance - 1 - ratio.log()).sum(-1)

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = parameters.float().chunk(2, dim=-1)
        return mean, F.softplus(raw) + 0.1


class CategoricalLatent:
    """V2 and V3: `size` categoricals of `classes`, flattened; a share `unimix` is uniform. Parameters (..., S K): logits."""

    def __init__(self, size: int, classes: int, unimix: float):
        self.classes, self.unimix = classes, unimix
        self.size = self.num_parameters = size * classes

    def sample(self, parameters: Tensor) -> Tensor:
        """One-hot sample with the gradient of the probabilities (straight-through), (..., S K)."""
        probabilities = self.probabilities(parameters)
        with torch.no_grad():
            # Inverse distribution function: one random number for each variable, not for each class.
            below = probabilities.cumsum(-1)[..., :-1]
            drawn = (torch.rand_like(below[..., :1]) >= below).sum(-1)
            onehot = F.one_hot(drawn, self.classes).to(probabilities.dtype)
        if not probabilities.requires_grad:
            return onehot.flatten(-2)
        return (onehot + (probabilities - probabilities.detach())).flatten(-2)

    def mode(self, parameters: Tensor) -> Tensor:
        """One-hot of the most likely classes, (..., S K)."""
        index = self._split(parameters).argmax(-1)
        return F.one_hot(index, self.classes).to(torch.float32).flatten(-2)

    def kl(self, q: Tensor, p: Tensor) -> Tensor:
        """KL(q || p) in nats, summed over variables, (...)."""
        log_q, log_p = self.log_probabilities(q), self.log_probabilities(p)
        return (log_q.exp() * (log_q - log_p)).sum((-2, -1))

    def log_prob(self, parameters: Tensor, stoch: Tensor) -> Tensor:
        """Ln p of one-hot samples (..., S K), summed over variables, (...)."""
        return (self.log_probabilities(parameters).flatten(-2) * stoch).sum(-1)

    def probabilities(self, parameters: Tensor) -> Tensor:
        """(..., S, K)."""
        p = self._split(parameters).softmax(-1)
        return p if self.unimix == 0 else (1 - self.unimix) * p + self.unimix / self.classes

    def log_probabilities(self, parameters: Tensor) -> Tensor:
        """(..., S, K)."""
        if self.unimix == 0:
            return self._split(parameters).log_softmax(-1)
        return self.probabilities(parameters).log()

    def _split(self, parameters: Tensor) -> Tensor:
        return parameters.float().unflatten(-1, (-1, self.classes))


Latent = GaussianLatent | CategoricalLatent
