"""One step of the recurrence: along recorded frames, and in imagination. What `rssm.compiling` makes one graph of each."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor, nn

from reverie.rssm.scan import StepLinear
from reverie.rssm.state import State

if TYPE_CHECKING:
    from reverie.rssm.cores import Core

Linears = dict[str, StepLinear]
"""The layers of one pass over time, by name."""
Act = Callable[[Tensor], Tensor]
"""Features (N, F) -> actions (N, A)."""
ObservedStep = Callable[["Core", Linears, State, Tensor, Tensor, Tensor], tuple[State, Tensor]]
"""See `observed_step`."""
ImaginedStep = Callable[["Core", Linears, Act, nn.Module, State, Tensor], tuple[Tensor, State, Tensor]]
"""See `imagined_step`."""


def observed_step(
    core: "Core", linears: Linears, state: State, keep: Tensor, action_in: Tensor, embed_in: Tensor
) -> tuple[State, Tensor]:
    """States (B, ...), forgotten where `keep` (B,) is 0 -> the next ones and the posterior's parameters (B, P)."""
    deter = core.recur(linears, state.keep(keep), action_in)
    parameters = core.posterior(linears, deter, embed_in)
    return State(deter, core.latent.sample(parameters)), parameters


def imagined_step(
    core: "Core", linears: Linears, act: Act, prior: nn.Module, state: State, feature: Tensor
) -> tuple[Tensor, State, Tensor]:
    """State and feature (N, ...) -> the action taken there, the next state, z from `prior`, and its feature."""
    action = act(feature.detach())
    state = core.step(linears, state, action, prior)
    return action, state, core.feature(state)
