"""Documents name only what is there: docs/architecture.md, its picture, and every module named in README and docs."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.rooms import ROOMS, TOP
from tests.rooms_picture import PICTURE, WALL, draw

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/architecture.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
FOLDERS = "|".join((*TOP, "tests", "benchmarks", "configs", "docs"))

PLACE = re.compile(r"`([\w/]+\.py): ([\w.]+)`")
"""`path/file.py: name`, as the tables of the page have it."""
FILE = re.compile(rf"(?<![\w/.\-])(?:{FOLDERS})/[\w\-./]+\.(?:py|md|yaml|svg|png)\b")
MODULE = re.compile(rf"(?<![\w/.\-])reverie((?:\.[A-Za-z_]\w*)+)|`((?:{'|'.join(TOP)})(?:\.[A-Za-z_]\w*)+)`")


def test_the_picture_is_drawn_from_the_rooms() -> None:
    assert PICTURE.read_text() == draw(), "run `python -m tests.rooms_picture`"


def test_every_room_stands_in_picture_and_page() -> None:
    shown = {element.text for element in ElementTree.parse(PICTURE).iter() if element.text}
    named = set(re.findall(r"^\| `([a-z.]+)` \|", PAGE.read_text(), re.MULTILINE))
    # A room that only holds rooms need not be one itself.
    assert set(ROOMS) <= shown
    assert named == set(ROOMS)


def test_bricks_stand_on_what_they_may_import() -> None:
    """The picture tells the truth: what a room may import lies under it, and the other bricks do not."""
    assert [brick.room for brick in WALL if brick.room not in TOP] == []
    for brick in WALL[1:]:
        allowed = {other.partition(".")[0] for other in (*ROOMS.get(brick.room, ()), *_of_inner(brick.room))}
        under = {other.room for other in WALL if brick.stands_on(other)}
        assert under >= allowed - {brick.room}, brick.room
        assert under <= allowed | {"data"}, brick.room


def test_inner_rooms_lie_inside_their_brick() -> None:
    boxes = [element.attrib for element in ElementTree.parse(PICTURE).iter() if element.tag.endswith("rect")]
    bricks = [box for box in boxes if box["class"] == "brick"]
    for chip in (box for box in boxes if box["class"] == "chip"):
        assert any(_lies_in(chip, brick) for brick in bricks), chip


def test_the_page_names_only_what_is_there() -> None:
    places = PLACE.findall(PAGE.read_text())
    assert len(places) > 100
    assert [f"{path}: {name}" for path, name in places if not _has(ROOT / path, name)] == []


def test_every_row_of_the_tables_of_functions_names_one() -> None:
    for table in re.split(r"\n\n", PAGE.read_text()):
        rows = [line for line in table.splitlines() if line.startswith("|")]
        if rows and "`file: function`" in rows[0]:
            assert [row for row in rows[2:] if not PLACE.search(row)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_name_only_files_and_modules_that_exist(document: Path) -> None:
    # In the table of what moved, the first column names what is gone.
    text = re.sub(r"^\| `reverie\.[^|]*\|", "|", document.read_text(), flags=re.MULTILINE)
    made_there = re.compile(r"\bwalk\b|\babsolute\b" if document.name == "CONTRIBUTING.md" else r"(?!)")
    assert [name for name in missing(text) if not made_there.search(name)] == []


def test_comments_and_docstrings_name_only_files_and_modules_that_exist() -> None:
    found = {}
    for top in (*TOP, "tests", "benchmarks"):
        for file in (ROOT / top).rglob("*.py"):
            text = "\n".join(span for words in _words(file) for span in re.findall(r"`[^`\n]+`", words))
            if absent := missing(text):
                found[str(file.relative_to(ROOT))] = absent
    assert found == {}


@pytest.mark.parametrize(
    "text",
    [
        "through one loop (`pipelines/training.py`)",
        "`Steps` in `data/steps.py`",
        "[docs](docs/nothing.md)",
        "from reverie.data.stores import Loader",
        "`data.shards.writer.Absent`",
        "python -m reverie.pipelines.training.absent",
    ],
)
def test_a_name_that_is_gone_is_found(text: str) -> None:
    assert missing(text) != []


def test_an_absent_function_is_found() -> None:
    assert not _has(ROOT / "agent/returns.py", "absent")
    assert not _has(ROOT / "agent/absent.py", "pmpo_loss")
    assert not _has(ROOT / "agent/model.py", "Agent.absent")
    assert _has(ROOT / "agent/model.py", "Agent.agent_tokens")


def missing(text: str) -> list[str]:
    """Paths and dotted names in `text` that lead nowhere. Words in CAPITALS stand for something."""
    files = [name for name in FILE.findall(text) if not re.search(r"[A-Z]{3}", name)]
    modules = [a.removeprefix(".") or b for a, b in MODULE.findall(text)]
    places = (ROOT, ROOT / "docs")  # pages link to those in folders beside them
    return [name for name in files if not any((place / name).is_file() for place in places)] + [
        name for name in modules if not _is_there(name)
    ]


def _is_there(dotted: str) -> bool:
    """`room.module`, `room.module.name` or `room.module.Class.member`, or a name of the package itself."""
    parts = dotted.split(".")
    if _has(ROOT / "src/reverie/__init__.py", dotted):
        return True
    for length in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:length])
        rest = ".".join(parts[length:])
        file = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
        if file.is_file():
            return not rest or _has(file, rest)
    return False


def _has(file: Path, name: str) -> bool:
    return file.is_file() and name in _names(file)


@cache
def _names(file: Path) -> frozenset[str]:
    return frozenset(_defined(ast.parse(file.read_text()).body, ""))


def _defined(body: list[ast.stmt], before: str) -> Iterator[str]:
    """Functions, classes and their members, and variables; dotted."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield before + node.name
            if isinstance(node, ast.ClassDef):
                yield from _defined(node.body, f"{before}{node.name}.")
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield before + node.target.id
        elif isinstance(node, ast.Assign):
            yield from (before + target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.If):
            yield from _defined(node.body, before)
        elif isinstance(node, ast.ImportFrom):
            yield from (before + (alias.asname or alias.name) for alias in node.names)


def _words(file: Path) -> Iterator[str]:
    """Docstrings, strings below names, and comments."""
    text = file.read_text()
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            yield node.value.value
    yield from re.findall(r"#.*", text)


def _of_inner(room: str) -> Iterator[str]:
    for inner, allowed in ROOMS.items():
        if inner.startswith(f"{room}."):
            yield from allowed


def _lies_in(inner: dict[str, str], outer: dict[str, str]) -> bool:
    a, b = ({key: int(box[key]) for key in ("x", "y", "width", "height")} for box in (inner, outer))
    return all(
        b[at] <= a[at] and a[at] + a[size] <= b[at] + b[size]
        for at, size in (("x", "width"), ("y", "height"))
    )
