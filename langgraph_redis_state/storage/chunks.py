"""Cutting values into chunks and lists of chunks into pages, so that what did not change is stored once. Pure functions.

A serialized value becomes *segments*: an ``int`` stands for that many chunks, ``bytes`` for themselves. Their
concatenation is the value. A msgpack array or map is cut between elements: a run of elements ends after one whose xxh3
hash matches a mask, within a minimum and a maximum size. Where a boundary falls depends on the content near it only, so
appending to a list or dropping its first elements leaves all other runs, and their digests, as they were. The header of
a cut array holds its length, which changes with each append; it stays a literal, outside the chunks.

The parameters are part of what makes equal content meet equal content; changing them is safe but stores things anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Final, NamedTuple, TypeVar

import msgspec
from xxhash import xxh3_64_intdigest

from .codec import CHUNK_MAX

CUT_FROM: Final = 1024
"""Values below this many bytes are one chunk."""

RUN_MIN: Final = 512

RUN_MAX: Final = 4096

RUN_MASK: Final = 1

FINE_MIN: Final = 256
"""A value that is cut fine may end a run after each element of its outermost container, from this many bytes on."""

FINE_ELEMENTS: Final = 256
"""Outermost containers of more elements are not cut fine: each chunk costs a field, its name, and references to it."""

ELEMENTS_MAX: Final = 200_000
"""Containers of more elements are sliced: finding the elements takes time and memory for each."""

DEPTH_MAX: Final = 32
"""Containers nested more deeply are not looked into."""

LITERALS_MAX: Final = 64
"""Headers kept outside chunks, for one value: beyond, records would grow by what they repeat."""

PAGE_FROM: Final = 24
"""Reference lists up to this long stay in the record."""

PAGE_MIN, PAGE_MAX, PAGE_MASK = 8, 32, 15

_PAGE_ENDS: Final = bytes(not first & PAGE_MASK for first in range(256))
"""By the first byte of a digest, whether a page may end behind it."""

PAGE_LIMIT: Final = 64
"""A page of more references was not made by this package: it is refused, since a record may name it thousands of times."""

Segment = int | bytes

Atom = tuple[bytes | memoryview, int, int | None]
"""Bytes that are not cut further, whether they are the header of a container, and how many bytes a run that ends behind them
has at least (None: not looked at yet)."""

Run = tuple[bytes | memoryview, ...]
"""What a chunk is made of."""

R = TypeVar("R")

_array = msgspec.msgpack.Decoder(list[msgspec.Raw])

_map = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])

_FIXEXT = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}


class Resume(NamedTuple):
    """Where a run ended, as far as `group` had come: what comes behind it does not depend on what was before."""

    atoms: int = 0
    """So many were before it."""
    runs: int = 0
    segments: tuple[Segment, ...] = ()
    counted: int = 0
    """Runs that the segments count."""
    literals: int = 0


BEGINNING: Final = Resume()


def cut(value: bytes, structured: bool, fine: bool = False) -> tuple[list[Segment], list[bytes]]:
    """(segments, chunks) of a serialized value. `structured`: it is msgpack, so elements can be found. `fine`: its outermost
    elements change one by one, each by itself."""
    if len(value) < CUT_FROM or not structured:
        chunks = _slices(value, 0, len(value))
        return [len(chunks)], chunks
    view = memoryview(value)
    places: list[int] = []
    _atoms(value, 0, len(value), places)
    pieces = map(view.__getitem__, map(slice, places[::4], places[1::4]))
    least: Iterable[int | None] = repeat(None)
    if fine and places[3::4].count(0) <= FINE_ELEMENTS:
        least = [None if depth else FINE_MIN for depth in places[3::4]]
    return group(zip(pieces, places[2::4], least, strict=False), b"".join)[:2]


def element(value: bytes) -> tuple[Atom, ...]:
    """The atoms of one element of an array, as `cut` finds them when it cuts the array."""
    places: list[int] = []
    if len(value) > RUN_MAX and _is_container(value[0]):
        _atoms(value, 0, len(value), places, 1)
    else:
        places += (0, len(value), False, 0)
    pieces = [value[low:high] for low, high in zip(places[::4], places[1::4], strict=True)]
    return tuple(zip(pieces, places[2::4], map(_ends_from, pieces), strict=True))


def _ends_from(piece: bytes | memoryview) -> int:
    return RUN_MAX if xxh3_64_intdigest(piece) & RUN_MASK else RUN_MIN


def group(
    atoms: Iterable[Atom], made: Callable[[list[bytes | memoryview]], R], begin: Resume = BEGINNING
) -> tuple[list[Segment], list[R], Resume]:
    """Atoms in content-defined groups, each of which is a chunk: segments, what was made of each run, and the last place where
    this may go on when atoms come to these. `begin`: such a place; `atoms` are those behind it, and so are the runs."""
    segments = [*begin.segments]
    runs: list[R] = []
    run: list[bytes | memoryview] = []
    size, literals, counted = 0, begin.literals, begin.counted - begin.runs
    last = begin.atoms, 0, len(segments), counted, literals

    def close() -> None:
        nonlocal run
        if size > CHUNK_MAX:  # one atom: more than RUN_MAX are never put together
            runs.extend(made([run[0][at : at + CHUNK_MAX]]) for at in range(0, size, CHUNK_MAX))
        else:
            runs.append(made(run))
        run = []

    for behind, (piece, literal, least) in enumerate(atoms, begin.atoms + 1):
        length = len(piece)
        if literal and literals < LITERALS_MAX:
            literals += 1
            if size:
                close()
                size = 0
            if len(runs) > counted:
                segments.append(len(runs) - counted)
                counted = len(runs)
            segments.append(bytes(piece))
            last = behind, len(runs), len(segments), counted, literals
            continue
        if size and size + length > RUN_MAX:
            close()
            size = 0
        run.append(piece)
        size += length
        if least is None:
            least = _ends_from(piece) if size >= RUN_MIN else RUN_MIN
        if size >= least:
            close()
            size = 0
            last = behind, len(runs), len(segments), counted, literals
    if size:
        close()
    if len(runs) > counted:
        segments.append(len(runs) - counted)
    ended, made_then, known, counted, literals = last
    resume = Resume(ended, begin.runs + made_then, tuple(segments[:known]), begin.runs + counted, literals)
    return segments, runs, resume


def _atoms(value: bytes, low: int, high: int, atoms: list[int], depth: int = 0) -> None:
    """Appends the elements between `low` and `high`, descending into large containers: of each start, end, whether it is the
    header of a container, and how many containers are around it.

    Four integers, where a tuple would be in the way of the garbage collector: tens of thousands of them at once made it look
    through the whole process, and an event loop stand still meanwhile.
    """
    inner = _inside_ext(value, low, high)
    body = low if inner is None else inner
    found = _elements(value, body, high)
    if found is None:
        atoms += (low, high, False, depth)
        return
    header, elements = found
    atoms += (low, header, True, depth)
    flat = iter(elements)
    for start, content, end in zip(flat, flat, flat, strict=True):
        if end - content > RUN_MAX and depth < DEPTH_MAX and _is_container(value[content]):
            if content > start:
                atoms += (start, content, False, depth)
            _atoms(value, content, end, atoms, depth + 1)
        else:
            atoms += (start, end, False, depth)


def _is_container(first: int) -> bool:
    return 0x80 <= first <= 0x9F or 0xDC <= first <= 0xDF or 0xC7 <= first <= 0xC9 or first in _FIXEXT


def _inside_ext(value: bytes, low: int, high: int) -> int | None:
    """Where the payload of an ext that fills the range begins, None if it is no ext."""
    first = value[low]
    if 0xC7 <= first <= 0xC9:
        width = 1 << (first - 0xC7)
        begin = low + 1 + width + 1
        if int.from_bytes(value[low + 1 : low + 1 + width], "big") == high - begin:
            return begin
    elif first in _FIXEXT and high - low == 2 + _FIXEXT[first]:
        return low + 2
    return None


def _elements(value: bytes, low: int, high: int) -> tuple[int, list[int]] | None:
    """(end of the header, of each element start, start of the content, end) of the container that fills the range."""
    if low >= high:
        return None
    first = value[low]
    if 0x90 <= first <= 0x9F or 0x80 <= first <= 0x8F:
        header, count = low + 1, first & 0x0F
    elif 0xDC <= first <= 0xDF:
        width = 2 if first in (0xDC, 0xDE) else 4
        header, count = low + 1 + width, int.from_bytes(value[low + 1 : low + 1 + width], "big")
    else:
        return None
    if not 0 < count <= ELEMENTS_MAX:
        return None
    elements: list[int] = []
    position = header
    view = memoryview(value)[low:high]
    try:
        if first in (0xDC, 0xDD) or first & 0xF0 == 0x90:
            for raw in _array.decode(view):
                end = position + len(raw)
                elements += (position, position, end)
                position = end
        else:
            for key, raw in _map.decode(view).items():
                size = len(key.encode())
                content = position + size + (1 if size < 32 else 2 if size < 256 else 3 if size < 65536 else 5)
                end = content + len(raw)
                elements += (position, content, end)
                position = end
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None  # not msgpack after all, keys that are not text, or nested too deeply: sliced
    if position != high or len(elements) != 3 * count:
        return None  # keys in a longer form than needed, or repeated: positions are not known
    return header, elements


def _slices(value: bytes, low: int, high: int) -> list[bytes]:
    return [value[at : min(at + CHUNK_MAX, high)] for at in range(low, high, CHUNK_MAX)]


def join(segments: Sequence[Segment], chunks: Sequence[bytes]) -> bytes:
    """The value again, from its segments and its chunks in order."""
    parts: list[bytes] = []
    at = 0
    for segment in segments:
        if isinstance(segment, int):
            parts.extend(chunks[at : at + segment])
            at += segment
        else:
            parts.append(segment)
    return b"".join(parts)


def count(segments: Sequence[Segment]) -> int:
    """How many chunks the segments refer to."""
    return sum(segment for segment in segments if isinstance(segment, int))


def literal(segments: Sequence[Segment]) -> int:
    """How many bytes stand in the segments themselves."""
    return sum(len(segment) for segment in segments if isinstance(segment, bytes))


def paginate(digests: Sequence[bytes]) -> tuple[list[tuple[bytes, ...]], tuple[bytes, ...]]:
    """(pages, rest): a long reference list cut at content-defined places; the rest stays in the record."""
    if len(digests) <= PAGE_FROM:
        return [], tuple(digests)
    pages: list[tuple[bytes, ...]] = []
    start = 0
    ends = bytes([digest[0] for digest in digests]).translate(_PAGE_ENDS)
    while True:
        last = ends.find(b"\1", start + PAGE_MIN - 1, start + PAGE_MAX)
        behind = start + PAGE_MAX if last < 0 else last + 1
        if behind > len(digests):
            return pages, tuple(digests[start:])
        pages.append(tuple(digests[start:behind]))
        start = behind
