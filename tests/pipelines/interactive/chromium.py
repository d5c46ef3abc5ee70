"""A headless Chromium and what tests read off the page."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

WAIT = 60_000
"""Milliseconds."""


def opened(context: Any, address: str) -> Any:
    """A page that has its first frame; whatever it complains of fails the test."""
    found = context.new_page()
    found.set_default_timeout(WAIT)
    found.faults = []
    found.on("pageerror", lambda error: found.faults.append(str(error)))
    found.on("console", lambda said: found.faults.append(said.text) if said.type == "error" else None)
    found.goto(address)
    found.wait_for_selector("#view[data-frame]")
    return found


def frame_number(page: Any) -> int:
    return int(page.get_attribute("#view", "data-frame"))


def wait_for_frame(page: Any, number: int) -> None:
    page.wait_for_function("n => Number(document.getElementById('view').dataset.frame) === n", arg=number)


def picture(page: Any, canvas: str = "view") -> np.ndarray:
    """What the canvas shows, at the size of the model's frames."""
    url = page.evaluate("id => document.getElementById(id).toDataURL('image/png')", canvas)
    image = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")
    return np.asarray(image)[6::12, 6::12]


def new_dream(page: Any, ask: Any) -> None:
    """Calls `ask` and waits until the first picture of what it leads to is drawn."""
    before = int(page.get_attribute("#view", "data-dream"))
    ask()
    page.wait_for_function("n => Number(document.getElementById('view').dataset.dream) > n", arg=before)
