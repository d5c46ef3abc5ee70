"""Arrays out of the bytes of an npz, ten times as fast as `numpy.load`, which is written for large files on disk.

A log is read for every window of video, and it is a dozen arrays of a few hundred bytes each. What is refused is the
same: archives cut off or not made by numpy, wrong checksums, and arrays of Python objects, which would be unpickled.
"""

import struct
import threading
import zlib
from ast import literal_eval
from collections.abc import Callable, Iterator
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, Literal
from zipfile import ZipFile

import numpy as np

_END = struct.Struct("<4s4H2LH")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_STORED, _DEFLATED = 0, 8
_MAGIC = b"\x93NUMPY\x01\x00"
_SUFFIX = ".npy"
_HEADER_LIMIT = 4096
_LARGEST = 1 << 40
"""Rows of an array."""
MOST_BYTES = 1 << 28
"""Of all arrays of one archive, unpacked: an hour of video has some ten million."""
_HEADERS = threading.Lock()
"""Headers are Python expressions, and Python 3.11 counts the depth of expressions for all threads together: two threads that read
headers at once may be told `SystemError: AST constructor recursion depth mismatch` of sound files."""


def load_npz(content: bytes) -> dict[str, np.ndarray]:
    """Name -> array, which cannot be written to. Raises `ValueError`, or an error of `zlib` or `struct`."""
    arrays: dict[str, np.ndarray] = {}
    for name, data in _members(content):
        if name.removesuffix(_SUFFIX) in arrays:
            raise ValueError(f"holds {name!r} twice")
        arrays[name.removesuffix(_SUFFIX)] = _array(data)
    return arrays


def read_npz(path: Path, wanted: Callable[[str], bool]) -> dict[str, np.ndarray]:
    """Those arrays of an archive from anywhere whose name is `wanted`, by numpy, which knows more kinds than `load_npz`.

    Sizes are checked before memory is taken for them: `MOST_BYTES` for all, and each array's header against its bytes.

    Raises `ValueError`, `OSError`, or whatever damage raises.
    """
    # Given a path, numpy leaves the file open when it finds no archive in it.
    with _HEADERS, path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it is a single array, not an archive of arrays")
        assert archive.zip is not None, "it is open"
        names = [member.filename for member in archive.zip.infolist()]
        if len(set(names)) < len(names):
            raise ValueError("it holds an array twice")
        if sum(member.file_size for member in archive.zip.infolist()) > MOST_BYTES:
            raise ValueError(f"it unpacks to more than {MOST_BYTES:,} bytes, which is no log of one video")
        found = {}
        for name in filter(wanted, archive.files):
            _require_header_fits(archive.zip, f"{name}{_SUFFIX}" if f"{name}{_SUFFIX}" in names else name)
            found[name] = np.asarray(archive[name])
        return found


def _require_header_fits(archive: ZipFile, name: str) -> None:
    with archive.open(name) as member:
        version = np.lib.format.read_magic(member)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(member)
        claimed = member.tell() + dtype.itemsize * prod(shape)
    if not dtype.hasobject and claimed != archive.getinfo(name).file_size:
        raise ValueError(f"{name} claims {claimed:,} bytes, which are not there")


def npy_layout(head: bytes) -> tuple[int, np.dtype[Any], tuple[int, ...]]:
    """Bytes before the first value, type and shape of an array in C order, from the first bytes of its file.

    Raises `ValueError`.
    """
    end = _header_end(head)
    dtype, shape, order = _header(head[len(_MAGIC) + 2 : end])
    if order != "C":
        raise ValueError("an array is not stored row by row")
    return end, dtype, shape


def _members(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and content of the files in a zip archive as numpy writes it: no comment, nothing encrypted, below 4 GB."""
    start = len(content) - _END.size
    signature, _, _, _, count, size, position, _ = _END.unpack_from(content, max(start, 0))
    if signature != b"PK\x05\x06" or position + size != start:
        raise ValueError("is no archive of arrays, or is cut off")
    total = 0
    for _ in range(count):
        entry = _ENTRY.unpack_from(content, position)
        if entry[0] != b"PK\x01\x02":
            raise ValueError("its list of arrays is damaged")
        method, checksum, packed, unpacked = entry[4], *entry[7:10]
        name_length, extra, comment, offset = *entry[10:13], entry[16]
        total += unpacked
        if total > MOST_BYTES:
            raise ValueError(f"its arrays unpack to more than {MOST_BYTES:,} bytes")
        name = content[position + _ENTRY.size : position + _ENTRY.size + name_length]
        position += _ENTRY.size + name_length + extra + comment
        data = _unpacked(_packed(content, offset, packed, name), method, unpacked)
        if zlib.crc32(data) != checksum:
            raise ValueError(f"{name.decode()} has a wrong checksum")
        yield name.decode(), data


def _packed(content: bytes, offset: int, size: int, name: bytes) -> bytes:
    header = _LOCAL.unpack_from(content, offset)
    begin = offset + _LOCAL.size + header[9] + header[10]
    if header[0] != b"PK\x03\x04" or content[offset + _LOCAL.size :][: header[9]] != name:
        raise ValueError(f"{name.decode()} is not where the archive says")
    return content[begin : begin + size]


def _unpacked(data: bytes, method: int, size: int) -> bytes:
    if method == _DEFLATED:
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        data = unpacker.decompress(data, size + 1)
    elif method != _STORED:
        raise ValueError("its arrays are packed in a way that numpy does not use")
    if len(data) != size:
        raise ValueError(f"an array has {len(data)} bytes, the archive says {size}")
    return data


def _header_end(data: bytes) -> int:
    begin = len(_MAGIC) + 2
    end = begin + int.from_bytes(data[begin - 2 : begin], "little")
    if not data.startswith(_MAGIC) or end > min(len(data), _HEADER_LIMIT):
        raise ValueError("holds something that is no array")
    return end


def _array(data: bytes) -> np.ndarray:
    end = _header_end(data)
    dtype, shape, order = _header(data[len(_MAGIC) + 2 : end])
    if len(data) - end != dtype.itemsize * prod(shape):
        raise ValueError(f"an array has {len(data) - end} bytes, which does not fit {dtype} {shape}")
    return np.frombuffer(data, dtype, offset=end).reshape(shape, order=order)


@lru_cache(1024)
def _header(text: bytes) -> tuple[np.dtype[Any], tuple[int, ...], Literal["C", "F"]]:
    """Type, shape and order in memory. The same few headers come again and again."""
    try:
        with _HEADERS:
            header = literal_eval(text.decode("latin1"))
        dtype, shape = np.dtype(header["descr"]), tuple(header["shape"])
        order: Literal["C", "F"] = "F" if header["fortran_order"] else "C"
    except Exception as error:  # of an expression that may be anything, nested to the limit too
        raise ValueError(f"the header of an array cannot be read ({type(error).__name__})") from None
    if dtype.hasobject or dtype.shape or not all(type(n) is int and 0 <= n <= _LARGEST for n in shape):
        raise ValueError("an array of objects, or of an impossible shape, is not read; store plain numbers")
    return dtype, shape, order
