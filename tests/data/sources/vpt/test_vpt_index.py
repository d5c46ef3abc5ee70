"""VPT index files: what they name, in which order, and what is refused; damaged ones never do harm."""

import json
import random
from pathlib import Path

import pytest

from reverie.data.errors import UserError
from reverie.data.sources.vpt.index_files import VPTIndex, join_indexes, parse_index

BASE = "https://example.org/minecraft-rl/"
NAMES = [
    f"6.{v}/p{p}-s{p}-20210806-12{t}000"
    for v, p, t in [(9, 0, 0), (9, 0, 1), (9, 1, 0), (8, 2, 0), (9, 1, 1)]
]


def index(relpaths: list[object], basedir: object = BASE) -> VPTIndex:
    return parse_index(json.dumps({"basedir": basedir, "relpaths": relpaths}).encode(), "i.json")


def test_names_and_addresses() -> None:
    for base in (BASE, BASE.rstrip("/")):
        found = index([NAMES[0], f"{NAMES[0]}.mp4", "data/6.9/a b#c.mp4"], base)
        assert not found.refused
        assert [(r.name, r.url) for r in found.recordings] == [
            (NAMES[0], f"{BASE}{NAMES[0]}"),
            ("data/6.9/a b#c", f"{BASE}data/6.9/a%20b%23c"),
        ]


def test_sessions_stay_together_in_a_fixed_order() -> None:
    joined = join_indexes([index(NAMES[3:]), index(NAMES[:4])])
    names = [recording.name for recording in joined.recordings]
    assert sorted(names) == sorted(NAMES) and names != sorted(NAMES)
    players = [name.split("/")[1].split("-")[0] for name in names]
    assert [players.index(p) for p in players] == sorted(players.index(p) for p in players)
    assert names.index(NAMES[0]) < names.index(NAMES[1]), "in order of time"
    assert joined == join_indexes([index(NAMES)])


def test_two_addresses_of_one_recording() -> None:
    joined = join_indexes([index(NAMES[:1]), index(NAMES[:1], "http://other/")])
    assert [recording.url for recording in joined.recordings] == [BASE + NAMES[0]]
    assert joined.refused == {
        f"http://other/{NAMES[0]}": f"{NAMES[0]} is also at {BASE}{NAMES[0]}, which was taken."
    }


HARMFUL = [
    *["/etc/passwd", "../a", "a/../../b", "a/..", "..", ".", "", "a//b", "a/", ".ssh/key", "a/.b", ".mp4"],
    *["a\\..\\b", "a\x00b", "a\nb", "\ud800", "x" * 256, "y" * 300 + "/a", 3, None, ["a"], {"a": 1}, True],
]


@pytest.mark.parametrize("relpath", HARMFUL, ids=range(len(HARMFUL)))
def test_relpaths_stay_in_the_folder(relpath: object) -> None:
    found = index([NAMES[0], relpath, NAMES[1]])
    assert [recording.name for recording in found.recordings] == NAMES[:2]
    assert len(found.refused) == 1
    entry, reason = next(iter(found.refused.items()))
    assert reason.startswith("i.json: its relpath ") and (entry + reason).isprintable() and len(entry) < 110


@pytest.mark.parametrize(
    "basedir", [None, 3, "", "file:///etc/", "ftp://a/", "example.org/", "http://", "http://a b/"]
)
def test_basedir_is_a_web_address(basedir: object) -> None:
    with pytest.raises(UserError, match="its basedir .* is no http or https address"):
        index(NAMES[:1], basedir)


DAMAGED = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe",
    b"3",
    b'{"basedir": "http://a/"}',
    b"[" * 100_000,
    b"9" * 5000,
]


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_files_are_one_sentence(content: bytes) -> None:
    with pytest.raises(UserError, match=r"^i\.json: (is no JSON|has no list relpaths)") as error:
        parse_index(content, "i.json")
    assert "\n" not in str(error.value)


def test_200_damaged_indexes(tmp_path: Path) -> None:
    """Bytes flipped, cut out, doubled: an error of one sentence, or names that stay in the folder."""
    whole = json.dumps({"basedir": BASE, "relpaths": NAMES * 3}).encode()
    survived = 0
    for seed in range(200):
        rng, content = random.Random(seed), bytearray(whole)
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(content))
            match rng.randrange(4):
                case 0:
                    content[at] = rng.randrange(256)
                case 1:
                    del content[at : at + rng.randint(1, 40)]
                case 2:
                    content[at:at] = rng.choice(
                        [b"../", b"/", b"\\u0000", b'", "', b"}", b"\\ud800", b"%2e%2e/"]
                    )
                case 3:
                    content[at:at] = content[at : at + rng.randint(1, 200)]
        try:
            found = join_indexes([parse_index(bytes(content), "i.json")])
        except UserError as error:
            assert str(error).startswith("i.json: ") and "\n" not in str(error)
            continue
        survived += 1
        for recording in found.recordings:
            target = (tmp_path / f"{recording.name}.mp4").resolve()
            assert target.is_relative_to(tmp_path) and recording.url.isascii()
    assert 40 < survived < 160, "both outcomes are tried"
