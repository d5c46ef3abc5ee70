"""Recurrences as generated code: one graph for a step along recorded frames, one for an imagined one.

What is drawn at random is the same as without, so that results differ by rounding alone (and where that makes another class of a
sample). Encoders, decoders and heads, which see all steps at once, stay as they are.
"""

from reverie.nn.compilation import compiled
from reverie.rssm.model import Dreamer
from reverie.rssm.steps import imagined_step, observed_step


def compile_steps(dreamer: Dreamer, *, required: bool = False, backend: str = "inductor") -> None:
    """From now on `dreamer` takes its steps compiled; arguments as those of `compiled`."""
    dreamer.world_model.core.observed_step = compiled(
        observed_step, "a recorded step", required=required, backend=backend, draws=True
    )
    dreamer.behaviour.imagined_step = compiled(
        imagined_step, "an imagined step", required=required, backend=backend, draws=True
    )
