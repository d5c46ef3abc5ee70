"""What a browser's mouse, fields, sliders and lists do to the actions: models of random weights, real pages and sockets."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from reverie.agent.dreams import Dreams
from reverie.data.actions import ActionSpace, Binary, Categorical, Continuous
from reverie.data.sources.vpt.minecraft import KEYS, NULL_MOUSE, SPACE, decode_camera
from reverie.dynamics.model import Dynamics, DynamicsConfig
from reverie.pipelines.interactive.controls import Controls
from reverie.pipelines.interactive.engine import Engine
from reverie.pipelines.interactive.house import House
from reverie.pipelines.interactive.server import PlayServer
from reverie.pipelines.interactive.world import PlayWorld
from reverie.tokenizer.model import Tokenizer, TokenizerConfig
from tests.pipelines.interactive.chromium import frame_number, new_dream, opened, picture, wait_for_frame
from tests.pipelines.interactive.page_client import running, unpacked

pytestmark = pytest.mark.slow

ARM = ActionSpace({"arm": Continuous(2, -1.0, 1.0), "grip": Categorical(3, 0, ("rest", "open", "close"))})


@contextmanager
def serving(space: ActionSpace, idle: float = 600.0) -> Iterator[PlayServer]:
    """A world of `space` that has learned nothing; dreams begin in nothing or in a picture."""
    tokenizer = Tokenizer(
        TokenizerConfig(
            frame_size=(32, 32),
            width=32,
            num_heads=2,
            num_kv_heads=2,
            bottleneck_tokens=4,
            bottleneck_channels=8,
        )
    )
    shape = tokenizer.config.latent_shape
    config = DynamicsConfig(latent_shape=shape, width=32, depth=2, num_heads=2, num_kv_heads=2, time_every=2)
    dreams = Dreams(tokenizer.eval(), Dynamics(config, space).eval())
    world = PlayWorld("random", "random", dreams, 10.0, None, 1, 4)
    house = House(world, Engine(dreams), Controls.of(space))
    server = PlayServer(house, "127.0.0.1", 0, visitors=2, idle=idle, hosts=[], secret=None)
    try:
        with running(server):
            yield server
    finally:
        house.engine.close()


@contextmanager
def page_of(browser: Any, server: PlayServer, **options: Any) -> Iterator[Any]:
    """A page in turns; `page.actions` are those of the frames that it has got."""
    context = browser.new_context(**options)
    actions: list[Any] = []

    def heard(content: Any) -> None:
        if isinstance(content, bytes) and "action" in (told := unpacked(content).content):
            actions.append(told["action"])

    context.on("page", lambda page: page.on("websocket", lambda socket: socket.on("framereceived", heard)))
    page = opened(context, server.address)
    page.actions = actions
    yield page
    assert page.faults == []
    context.close()


def keys_of(action: list[Any]) -> set[str]:
    """The names of Minecraft's keys that are down."""
    bits = action[list(SPACE.components).index("keys")]
    return {name for i, name in enumerate(KEYS) if bits >> i & 1}


def turn_of(action: list[Any]) -> tuple[float, float]:
    """Degrees down and right."""
    down, right = decode_camera(np.int64(action[list(SPACE.components).index("mouse")]))
    return float(down), float(right)


def test_the_mouse_is_locked_turns_the_head_and_its_buttons_act(browser: Any) -> None:
    with serving(SPACE) as server, page_of(browser, server) as page:
        page.click("#veil")
        page.wait_for_function("() => document.pointerLockElement === document.getElementById('view')")
        page.keyboard.down("KeyW")
        page.mouse.down()
        box = page.locator("#view").bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x, y)
        page.mouse.move(x + 120, y)
        page.wait_for_function("n => Number(document.getElementById('view').dataset.frame) > n", arg=5)
        page.evaluate("document.exitPointerLock()")  # as Escape does
        page.wait_for_selector("#veil:not([hidden])")
        page.mouse.up()
        page.keyboard.up("KeyW")
        assert any(turn_of(action)[1] > 0 for action in page.actions), page.actions
        assert any({"forward", "attack"} <= keys_of(action) for action in page.actions)
        page.click("#one")
        page.wait_for_function(f"() => Number(document.getElementById('view').dataset.frame) > {5}")


def test_a_finger_that_drags_turns_the_head(browser: Any) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with serving(SPACE) as server, page_of(browser, server, **phone) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.evaluate("document.getElementById('turns').click()")
        field = page.locator("#look")
        field.scroll_into_view_if_needed()
        for kind, x in (("pointerdown", 10), ("pointermove", 60), ("pointerup", 60)):
            field.evaluate(
                "(field, [kind, x]) => { field.setPointerCapture = () => {};"
                " field.dispatchEvent(new PointerEvent(kind, {pointerId: 1, clientX: x, clientY: 5, bubbles: true})) }",
                [kind, x],
            )
        page.tap('#touch button:text-is("jump")')
        wait_for_frame(page, 1)
        (action,) = page.actions
        assert turn_of(action)[1] > 0 and keys_of(action) == {"jump"}
        page.tap('#touch button:text-is("forward")')
        wait_for_frame(page, 2)
        assert page.actions[1][list(SPACE.components).index("mouse")] == NULL_MOUSE


def test_sliders_hold_and_lists_act(browser: Any) -> None:
    with serving(ARM) as server, page_of(browser, server) as page:
        page.check("#turns")
        sliders = page.locator("#inputs input[type=range]")
        assert sliders.count() == 2
        sliders.nth(0).fill("0.5")
        sliders.nth(1).fill("-1")
        for number in (1, 2):
            page.click("#one")
            wait_for_frame(page, number)
        assert page.actions == [[[0.5, -1.0], 0]] * 2, "they stay where they are put"
        page.locator("#inputs select").select_option(label="close")
        wait_for_frame(page, 3)
        page.keyboard.press("Digit1")
        wait_for_frame(page, 4)
        assert [action[1] for action in page.actions[2:]] == [2, 1], "a key goes before the list"


def test_noise_steps_seed_and_speed_change_what_is_seen(browser: Any) -> None:
    with serving(ActionSpace({"press": Binary(2)})) as server, page_of(browser, server) as page:
        page.check("#turns")

        def third_picture(**fields: str) -> np.ndarray:
            new_dream(page, lambda: page.click("#again"))
            for name, value in {"steps": "1", "level": "0.9", "seed": "5", **fields}.items():
                if name == "steps":
                    page.select_option("#steps", value)
                else:
                    page.fill(f"#{name}", value)
                    page.locator(f"#{name}").blur()
            for number in (1, 2, 3):
                page.click("#one")
                wait_for_frame(page, number)
            return picture(page)

        plain = third_picture()
        assert np.array_equal(plain, third_picture())
        for change in ({"steps": "4"}, {"level": "0.2"}, {"seed": "6"}):
            assert not np.array_equal(plain, third_picture(**change)), change
        page.fill("#speed", "30")
        assert page.inner_text("#speed-out") == "30"


def test_a_page_that_was_idle_says_so_and_comes_back(browser: Any) -> None:
    with serving(ARM, idle=8.0) as server, page_of(browser, server) as page:
        page.wait_for_function("() => document.getElementById('veil-text').textContent === 'Come back'")
        assert server.places.taken == 0
        new_dream(page, lambda: page.click("#veil"))
        assert frame_number(page) == 0 and server.places.taken == 1
