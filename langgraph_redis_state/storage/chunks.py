"""Cutting values into chunks and lists of chunks into pages, so that what did not change is stored once. Pure functions.

A serialized value becomes *segments*: an ``int`` stands for that many chunks, ``bytes`` for themselves. Their
concatenation is the value. A msgpack array or map is cut between elements: a run of elements ends after one whose xxh3
hash matches a mask, within a minimum and a maximum size. Where a boundary falls depends on the content near it only, so
appending to a list or dropping its first elements leaves all other runs, and their digests, as they were. The header of
a cut array holds its length, which changes with each append; it stays a literal, outside the chunks.

The parameters are part of what makes equal content meet equal content; changing them is safe but stores things anew.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import accumulate, repeat
from operator import add
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

PORTION: Final = 6400
"""The elements of a larger container are found in portions of at most so many."""

FEW: Final = 16
"""The elements of a smaller container are not worth doing at once."""

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


class _First(msgspec.Struct, array_like=True):
    """The first element of an array; the decoder only passes over the others."""

    first: msgspec.Raw


_first = msgspec.msgpack.Decoder(_First)

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
    inner, before = _inside_ext(value, low, high), len(atoms)
    body = low if inner is None else inner
    container = _container(value, body, high)
    if container is None:
        atoms += (low, high, False, depth)
        return
    header, count, is_map = container
    atoms += (low, header, True, depth)
    try:
        if count <= PORTION:
            fits = _add_elements(value, memoryview(value)[body:high], header, high, is_map, atoms, depth)
        else:
            fits = all(
                _add_elements(value, _header(is_map, number) + value[start:end], start, end, is_map, atoms, depth)
                for start, end, number in _portions(value, header, high, count, 1 + is_map)
            )
    except (msgspec.DecodeError, ValueError, RecursionError):
        fits = False  # not msgpack after all, keys that are not text, or nested too deeply
    if not fits:  # sliced
        del atoms[before:]
        atoms += (low, high, False, depth)


def _add_elements(
    value: bytes, container: bytes | memoryview, low: int, high: int, is_map: bool, atoms: list[int], depth: int
) -> bool:
    """`_atoms` for the elements of a container, which stand between `low` and `high`. False if they do not fill the range: keys
    are in a longer form than needed, or repeated, so that positions are not known."""
    found = _map.decode(container) if is_map else _array.decode(container)
    raws: Collection[msgspec.Raw] = found.values() if isinstance(found, dict) else found
    if len(found) > FEW and (depth >= DEPTH_MAX or max(map(len, raws)) <= RUN_MAX):  # none is looked into: at once
        lengths = map(len, raws)
        sizes: Iterable[int] = map(add, map(_key_size, found), lengths) if isinstance(found, dict) else lengths
        ends = list(accumulate(sizes, initial=low))
        places = [0] * (4 * len(found))  # 0: not the header of a container
        places[::4], places[1::4], places[3::4] = ends[:-1], ends[1:], [depth] * len(found)
        atoms += places
        position: int = ends[-1]
        return position == high
    position = low
    for key, raw in zip(found, raws, strict=True):
        content = position + _key_size(key) if isinstance(key, str) else position
        end = content + len(raw)
        if len(raw) > RUN_MAX and depth < DEPTH_MAX and _is_container(value[content]):
            if content > position:
                atoms += (position, content, False, depth)
            _atoms(value, content, end, atoms, depth + 1)
        else:
            atoms += (position, end, False, depth)
        position = end
    return position == high


def _key_size(key: str) -> int:
    size = len(key.encode())
    return size + (1 if size < 32 else 2 if size < 256 else 3 if size < 65536 else 5)


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


def _container(value: bytes, low: int, high: int) -> tuple[int, int, bool] | None:
    """(end of the header, number of elements, whether it is a map) of the container at `low`; None if it is not cut."""
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
    return (header, count, first in (0xDE, 0xDF) or first < 0x90) if 0 < count <= ELEMENTS_MAX else None


def _portions(value: bytes, low: int, high: int, count: int, width: int) -> Iterator[tuple[int, int, int]]:
    """(start, end, number of elements) of portions of a container whose elements, of `width` values each, fill the range.

    One call of a decoder keeps the interpreter's lock, and to make objects of 100,000 elements takes ten times as long as to
    pass over them. So elements are halved by passing over them. Where the first half ends, a decoder tells if headers are put
    before the elements: of an array whose first value is the first half, itself an array, and whose other values follow.
    """
    if count <= PORTION:
        yield low, high, count
        return
    half = count // 2
    headers = _header(False, 1 + (count - half) * width) + _header(False, half * width)
    middle = low + len(_first.decode(b"".join((headers, memoryview(value)[low:high]))).first) - len(headers) // 2
    yield from _portions(value, low, middle, half, width)
    yield from _portions(value, middle, high, count - half, width)


def _header(is_map: bool, count: int) -> bytes:
    return (b"\xdf" if is_map else b"\xdd") + count.to_bytes(4, "big")


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
