"""What games draw, in every form that is about: converted exactly, or refused with what was seen. Nothing turns black."""

import numpy as np
import pytest

from reverie.data.errors import UserError
from reverie.environments.gym.pictures import Pictures
from tests.environments.odd_games import NO_PICTURES, PICTURES, TRUE

FIELD = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
FIELD[0, :2] = (255, 255, 255), (0, 0, 0)


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_of_any_form_is_what_it_shows(name: str) -> None:
    shown = Pictures("game").convert(PICTURES[name](FIELD))
    assert shown.dtype == np.uint8 and shown.shape == (24, 32, 3)
    np.testing.assert_array_equal(shown, TRUE.get(name, lambda x: x)(FIELD))


@pytest.mark.parametrize("name", NO_PICTURES)
def test_what_is_no_picture_is_refused_in_a_sentence(name: str) -> None:
    with pytest.raises(UserError, match="^game 'x': draws ") as refused:
        Pictures("game 'x'").convert(NO_PICTURES[name](FIELD))
    assert str(refused.value).endswith(".") and "\n" not in str(refused.value)


def test_the_refusal_says_dtype_shape_and_range() -> None:
    with pytest.raises(UserError, match=r"float64 of shape \(24, 32, 3\) with numbers from -1 to 1"):
        Pictures("game").convert(FIELD / 127.5 - 1)


@pytest.mark.parametrize(
    ("drawn", "bounds"),
    [
        (FIELD / 127.5 - 1, [-1, 1]),
        (FIELD.astype(np.uint16) * 257, [0, 65535]),
        (1 - FIELD / 255, [1, 0]),
        ((FIELD >= 128).astype(np.int64), [0, 1]),
    ],
)
def test_the_option_says_what_numbers_mean(drawn: np.ndarray, bounds: list[float]) -> None:
    expected = (FIELD >= 128) * np.uint8(255) if drawn.dtype == np.int64 else FIELD
    np.testing.assert_array_equal(Pictures("game", bounds).convert(drawn), expected)


@pytest.mark.parametrize("bounds", [[1], [0, 0], ["a", "b"], [0, float("inf")], 3])
def test_an_impossible_range_is_refused(bounds: object) -> None:
    with pytest.raises(UserError, match="drawn_range"):
        Pictures("game", bounds)  # type: ignore[arg-type]


def test_dark_pictures_keep_the_scale_of_the_first_bright_one() -> None:
    pictures, dim = Pictures("game"), np.full((4, 6, 3), 0.5, np.float32)
    assert pictures.convert(np.zeros((4, 6, 3))).max() == 0
    assert pictures.convert(dim * 400).max() == 200
    assert pictures.convert(dim).max() == 0  # half a step of 255
    ones = Pictures("game")
    assert ones.convert(dim).max() == 128
    with pytest.raises(UserError, match="they went up to 1 before"):
        ones.convert(dim * 400)


def test_a_picture_is_kept_when_the_game_draws_over_it() -> None:
    drawn = FIELD.copy()
    shown = Pictures("game").convert(drawn)
    drawn[:] = 0
    np.testing.assert_array_equal(shown, FIELD)


@pytest.mark.parametrize("shape", [(3, 20, 4), (4, 20, 30), (1, 20, 1), (4, 20, 4), (20, 30, 2)])
def test_axes_that_may_be_read_in_two_ways_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="shape"):
        Pictures("game").convert(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
