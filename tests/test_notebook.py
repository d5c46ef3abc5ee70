"""The notebook runs from its first cell to its last, with few steps."""

import os
import sys
from pathlib import Path

import pytest

from tests.test_documents import ROOT

NOTEBOOK = ROOT / "docs/notebook.ipynb"


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip(
        "nbformat", reason="nbclient runs notebooks: pip install nbclient ipykernel"
    )
    client = pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (ROOT / "src", ROOT))))
    scripts = tmp_path / "bin"
    scripts.mkdir()
    command = scripts / "reverie"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m reverie "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(scripts), prepend=os.pathsep)
    monkeypatch.setenv("JUPYTER_ALLOW_INSECURE_WRITES", "1")
    book = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(book)
    settings = next(cell for cell in book.cells if "parameters" in cell.metadata.get("tags", ()))
    settings.source = "episodes, steps = 8, 2"
    runner = client.NotebookClient(book, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    runner.execute()
    pictures = [
        output
        for cell in book.cells
        for output in cell.get("outputs", ())
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 4, "a strip of the recording, and three of dreams"
    said = "".join(output.get("text", "") for cell in book.cells for output in cell.get("outputs", ()))
    assert "dynamics holds step 2" in said and "the agent would do" in said


def test_it_keeps_no_secrets_of_the_machine_and_stays_small() -> None:
    text = NOTEBOOK.read_text()
    assert len(text) < 300_000
    assert "/tmp" not in text and "/home" not in text and "/root" not in text and "/work" not in text
