"""A real browser drives every control of the page; the frame changes as the action says, scored against the real game."""

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reverie.data.sources.episodes import complete_episodes
from reverie.environments.make import make_env
from reverie.pipelines.interactive.play import PlayConfig
from reverie.pipelines.interactive.server import PlayServer
from tests.pipelines.interactive.chromium import frame_number, new_dream, opened, picture, wait_for_frame
from tests.pipelines.interactive.page_client import serving

pytestmark = pytest.mark.slow

GAME = "minigrid-empty-random-5x5"
STEPS = (
    ("ArrowUp", 2),
    ("ArrowLeft", 0),
    ("ArrowUp", 2),
    ("ArrowRight", 1),
    ("ArrowRight", 1),
    ("ArrowUp", 2),
)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("play")


@pytest.fixture(scope="module")
def server(out: Path) -> Iterator[PlayServer]:
    with serving(PlayConfig(world="minigrid", out=out, port=0, device="cpu", visitors=2)) as running:
        yield running


@pytest.fixture
def page(browser: Any, server: PlayServer) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 860}, accept_downloads=True)
    yield opened(context, server.address)
    context.close()
    deadline = time.monotonic() + 30
    while server.places.taken and time.monotonic() < deadline:
        time.sleep(0.05)
    assert server.places.taken == 0, "a closed page frees its place"


def tiles_alike(a: np.ndarray, b: np.ndarray, tile: int = 8) -> float:
    """Share of tiles whose mean difference is small."""
    difference = np.abs(a.astype(int) - b).mean(-1)
    blocks = difference.reshape(len(a) // tile, tile, -1, tile).mean((1, 3))
    return float((blocks < 16).mean())


def settled(page: Any) -> int:
    """The number of the frame at which a pause came, once frames that were under way are there."""
    number = -1
    while number != frame_number(page):
        number = frame_number(page)
        time.sleep(1.0)
    return number


def test_keys_move_the_dream_as_they_move_the_game(page: Any) -> None:
    page.check("#turns")
    new_dream(page, lambda: page.click('[data-start="game"]'))
    seed = int(page.inner_text("#place").rpartition(" ")[2])
    env = make_env(GAME, seed=seed)
    truth = [env.reset(seed=seed)[0]]
    assert tiles_alike(picture(page), truth[0]) == 1
    scores, changed = [], 0
    for number, (code, action) in enumerate(STEPS, start=1):
        page.keyboard.press(code)  # a tap: down and up within a frame
        wait_for_frame(page, number)
        truth.append(env.step({"action": action})[0])
        assert np.array_equal(picture(page, "truth"), truth[-1]), "the game takes the same action"
        scores.append(tiles_alike(picture(page), truth[-1]))
        changed += not np.array_equal(truth[-1], truth[-2])
    assert changed >= 3 and np.mean(scores) > 0.97, scores
    assert page.inner_text("#alike").endswith("% alike") and page.faults == []


def test_play_pause_one_step_and_held_keys(page: Any) -> None:
    page.click("#veil")
    page.wait_for_function("() => Number(document.getElementById('view').dataset.frame) >= 3")
    page.keyboard.press("KeyP")
    page.wait_for_selector("#veil:not([hidden])")
    number = settled(page)
    time.sleep(0.5)
    assert frame_number(page) == number, "it stands still"
    page.keyboard.down("ArrowLeft")
    for more in (1, 2, 3):
        page.click("#one")
        wait_for_frame(page, number + more)
        assert page.locator('.key.down[data-code="ArrowLeft"]').count() == 1, (
            "one step does not forget held keys"
        )
    page.keyboard.up("ArrowLeft")
    assert page.locator(".key.down").count() == 0
    for name in ("fps", "latency", "model", "frames"):
        assert page.inner_text(f"#{name}")
    assert page.faults == []


def test_rewind_and_another_action(page: Any) -> None:
    page.check("#turns")
    pictures = [picture(page)]
    for number, code in enumerate(("ArrowLeft", "ArrowLeft", "ArrowUp"), start=1):
        page.keyboard.press(code)
        wait_for_frame(page, number)
        pictures.append(picture(page))
    page.keyboard.press("BracketLeft")
    wait_for_frame(page, 2)
    assert np.array_equal(picture(page), pictures[2])
    page.keyboard.press("ArrowRight")
    wait_for_frame(page, 3)
    assert not np.array_equal(picture(page), pictures[3])
    page.click("#again")
    wait_for_frame(page, 0)
    assert np.array_equal(picture(page), pictures[0]) and page.is_disabled("#back")
    assert page.faults == []


def test_touch_buttons_on_a_phone(browser: Any, server: PlayServer) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    phone = opened(context, server.address)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390, "nothing is wider than the screen"
    phone.evaluate("document.getElementById('turns').click()")
    for number, label in enumerate(("left", "right", "forward"), start=1):
        phone.tap(f'#touch button:text-is("{label}")')
        wait_for_frame(phone, number)
    assert phone.faults == []
    context.close()


def test_a_gamepad_plays(browser: Any, server: PlayServer) -> None:
    context = browser.new_context()
    context.add_init_script(
        "window.pad = {connected: true, axes: [0, 0, 0, 0], buttons: Array.from({length: 16}, () => ({pressed: false}))};"
        "navigator.getGamepads = () => [window.pad];"
    )
    page = opened(context, server.address)
    page.check("#turns")
    page.evaluate("pad.buttons[14].pressed = true")
    wait_for_frame(page, 1)
    assert page.locator('.key.down[data-code="ArrowLeft"]').count() == 1
    page.evaluate("pad.buttons[14].pressed = false; pad.axes[1] = -1")
    wait_for_frame(page, 2)
    assert page.locator('.key.down[data-code="ArrowUp"]').count() == 1 and page.faults == []
    context.close()


def test_agent_settings_and_strips(page: Any) -> None:
    page.check("#plays")
    page.select_option("#task", "0")
    page.select_option("#steps", "8")
    page.fill("#seed", "42")
    page.press("#seed", "Tab")
    page.locator("#level").fill("0.5")
    page.locator("#level").dispatch_event("change")
    page.click("#veil")
    page.wait_for_function("() => Number(document.getElementById('view').dataset.frame) >= 5")
    page.keyboard.press("KeyP")
    assert (
        page.input_value("#steps") == "8"
        and page.input_value("#seed") == "42"
        and page.input_value("#level") == "0.5"
    )
    for strip in ("value", "reward", "continues"):
        assert float(page.inner_text(f'.strip:has([data-strip="{strip}"]) b')) < 2
        canvas = f"document.querySelector('[data-strip={strip}]').getContext('2d')"
        drawn = page.evaluate(f"{canvas}.getImageData(0, 0, 2000, 80).data.some(x => x)")
        assert drawn
    shares = [int(text.split()[0]) for text in page.locator("#policy b").all_inner_texts()]
    assert len(shares) == 7 and 95 <= sum(shares) <= 105 and page.faults == []


def test_an_uploaded_picture_a_dream_from_nothing_and_the_games_present(page: Any) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), (10, 120, 240)).save(buffer, "JPEG")
    jpeg = {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": buffer.getvalue()}
    new_dream(page, lambda: page.set_input_files("#file", jpeg))
    assert page.get_attribute("#view", "data-place") == "an uploaded picture"
    assert np.abs(picture(page).astype(int) - (10, 120, 240)).max() < 12
    page.set_input_files("#file", {"name": "b.png", "mimeType": "image/png", "buffer": b"no picture"})
    page.wait_for_function("() => document.getElementById('problem').textContent.includes('no picture')")
    new_dream(page, lambda: page.click('[data-start="nothing"]'))
    assert page.inner_text("#place").endswith("nothing")
    page.click("#one")
    wait_for_frame(page, 1)
    new_dream(page, lambda: page.click('[data-start="game"]'))
    page.click("#one")
    wait_for_frame(page, 1)
    new_dream(page, lambda: page.click("#here"))
    assert frame_number(page) == 0
    assert np.array_equal(picture(page), picture(page, "truth")) and page.faults == []


def test_recording_and_a_saved_session_that_is_replayed(page: Any, out: Path, server: PlayServer) -> None:
    before = set(complete_episodes(out))
    page.check("#turns")
    for number, code in enumerate(("ArrowLeft", "ArrowUp", "ArrowUp"), start=1):
        page.keyboard.press(code)
        wait_for_frame(page, number)
    last = picture(page)
    with page.expect_download() as download:
        page.click("#save")
    saved = Path(download.value.path()).read_text()
    page.click("#link")
    page.wait_for_function("() => location.hash.startsWith('#s=')")
    assert page.evaluate("location.hash") == f"#s={saved}"
    page.uncheck("#record")
    page.wait_for_selector("#recording", state="hidden")
    (new,) = set(complete_episodes(out)) - before
    assert (out / "films" / f"{new}.mp4").stat().st_size > 0
    page.close()
    second = opened(page.context, f"{server.address}#s={saved}")
    second.wait_for_selector("#replaying:not([hidden])")
    second.click("#veil")
    second.wait_for_function("() => document.getElementById('said').textContent.includes('bit for bit')")
    assert np.array_equal(picture(second), last) and second.faults == []


def test_a_second_visitor_a_third_and_a_dropped_connection(
    page: Any, browser: Any, server: PlayServer
) -> None:
    context = browser.new_context()
    other = opened(context, server.address)
    page.click("#one")
    wait_for_frame(page, 1)
    assert frame_number(other) == 0, "each has a dream of their own"
    third = context.new_page()
    third.goto(server.address)
    third.wait_for_function("() => document.getElementById('status').textContent.includes('taken')")
    third.close()
    context.close()

    page.click("#one")
    wait_for_frame(page, 2)
    last = picture(page)
    # The network goes away below the page, which is told nothing.
    for protocol in list(server.connections):
        protocol.transport.abort()
    page.wait_for_selector('#status[data-state="off"]')
    page.wait_for_selector('#status[data-state="on"]')
    assert frame_number(page) == 2 and np.array_equal(picture(page), last), "the dream is found again"
    page.click("#one")
    wait_for_frame(page, 3)


def test_key_to_picture(page: Any) -> None:
    page.click("#veil")
    for _ in range(25):
        page.keyboard.press("ArrowLeft")
        time.sleep(0.15)
    page.keyboard.press("KeyP")
    said = {name: page.inner_text(f"#{name}") for name in ("latency", "fps", "model")}
    print(f"milliseconds from key to picture, frames a second, milliseconds of the model: {said}")
    assert float(page.inner_text("#latency")) > 0
