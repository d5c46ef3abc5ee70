"""What counts as the action that does nothing."""

import torch

from reverie.data.actions import ActionSpace, Binary, Categorical, Continuous

SPACE = ActionSpace(
    {
        "keys": Binary(3),
        "mouse": Categorical(5, null=2),
        "stick": Continuous(2),
        "speed": Continuous(1, low=0.5, high=2.0),  # 0 lies outside: the null action is 0.5
    }
)


def test_null_in_all_components() -> None:
    actions = SPACE.null(4, 6)
    assert SPACE.is_null(actions).tolist() == [[True] * 6] * 4
    actions["keys"][0, 0, 2] = True
    actions["mouse"][1, 1] = 0
    actions["stick"][2, 2, 1] = -1e-6
    actions["speed"][3, 3, 0] = 1
    assert (~SPACE.is_null(actions)).nonzero().tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]


def test_one_component() -> None:
    assert ActionSpace({"action": Categorical(17)}).is_null({"action": torch.arange(3)}).tolist() == [1, 0, 0]
