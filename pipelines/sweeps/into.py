"""Tables in documents: what stands between two marks is what a sweep has found, and nobody's typing."""

import re
from collections.abc import Iterable
from pathlib import Path

from reverie.data.errors import UserError
from reverie.pipelines.runs.atomic import write_text


def marks(name: str) -> tuple[str, str]:
    """The lines around the table of a sweep."""
    return f"<!-- sweep: {name} -->", "<!-- end of sweep -->"


def require_marks(document: Path, name: str) -> None:
    """Raises `UserError` unless `document` has the marks, in order and once."""
    begin, end = marks(name)
    text = document.read_text() if document.is_file() else ""
    if len(re.findall(_between(name), text, re.S)) != 1:
        raise UserError(
            f"--into {document}: has no place for this table; write the two lines {begin} and {end} where it should stand."
        )


def write_into(document: Path, name: str, lines: Iterable[str]) -> None:
    """Puts `lines` between the marks; the rest of the document stays as it is."""
    begin, end = marks(name)
    table = "\n".join([begin, "", *lines, "", end])
    write_text(document, re.sub(_between(name), lambda _: table, document.read_text(), flags=re.S))


def _between(name: str) -> str:
    begin, end = map(re.escape, marks(name))
    return rf"{begin}(?:(?!{begin}|{end}).)*{end}"
