"""Cutting: whatever the bytes, they come back; small changes leave most chunks as they were."""

from __future__ import annotations

import gc
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from soak import times

from langgraph_redis_state.storage import chunks
from langgraph_redis_state.storage.codec import CHUNK_MAX

SERDE = JsonPlusSerializer()

leaves = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=30) | st.dictionaries(st.text(max_size=40), inner), max_leaves=60
)


def message(n: int, size: int = 300) -> AIMessage:
    return AIMessage(content=f"{n} " + "".join(random.Random(n).choices("abcdefgh ", k=size)), id=str(n))


def cut(value: object, fine: bool = False) -> tuple[list[chunks.Segment], list[bytes]]:
    _, blob = SERDE.dumps_typed(value)
    segments, pieces = chunks.cut(blob, True, fine)
    assert chunks.join(segments, pieces) == blob
    assert chunks.count(segments) == len(pieces)
    assert all(0 < len(piece) <= CHUNK_MAX for piece in pieces)
    return segments, pieces


@given(values)
@settings(max_examples=times(25, 150), deadline=None)
def test_any_value_comes_back(value: object) -> None:
    for fine in (False, True):
        cut([value] * 40, fine)
        cut({"a": value, "b": [value] * 50, "c": {"d": value}}, fine)


def test_cut_fine_a_key_changes_alone() -> None:
    before = {f"k{n}": f"{n} " * 150 for n in range(50)}
    _, old = cut(before, fine=True)
    _, new = cut({**before, "k20": "another"}, fine=True)
    assert len(old) == 50
    assert len(set(new) - set(old)) == 1, "the key, with the one after it since it is short now"
    long = [message(n) for n in range(400)]
    assert cut({**before, "list": long}, fine=True)[1][51:] == cut(long)[1], "what is inside a key is cut as everywhere"


def test_containers_of_many_elements_are_never_cut_fine() -> None:
    many = [f"{n} " * 150 for n in range(chunks.FINE_ELEMENTS + 1)]
    assert cut(many, fine=True) == cut(many)
    assert len(cut(many[:-2], fine=True)[1]) > 2 * len(cut(many)[1])


@given(st.binary(max_size=5000), st.booleans())
@settings(max_examples=times(50, 150), deadline=None)
def test_any_bytes_come_back_even_if_called_msgpack(blob: bytes, structured: bool) -> None:
    segments, pieces = chunks.cut(blob, structured)
    assert chunks.join(segments, pieces) == blob


@given(st.integers(0x80, 0xFF), st.binary(min_size=1100, max_size=3000))
@settings(max_examples=times(40, 200), deadline=None)
def test_lying_container_headers_come_back(first: int, rest: bytes) -> None:
    blob = bytes([first]) + rest
    segments, pieces = chunks.cut(blob, True)
    assert chunks.join(segments, pieces) == blob


@pytest.mark.parametrize(
    "value",
    [
        np.zeros(200_000),
        "x" * 600_000,
        list(range(210_000)),
        dict.fromkeys(range(2000), "int keys"),
        {("tuple", n): n for n in range(500)},
        {"a" * size: "v" * 400 for size in (1, 31, 32, 255, 256, 70_000)},
        [[[["deep " * 5000]]]],
        {"files": {f"f{n}": "z" * n * 60 for n in range(200)}},
    ],
    ids=["array", "long text", "too many elements", "int keys", "tuple keys", "key lengths", "deep", "files"],
)
def test_hard_shapes_come_back(value: object) -> None:
    cut(value)


@given(values)
@settings(max_examples=times(15, 150), deadline=None)
def test_large_containers_are_cut_the_same_in_portions_as_at_once(value: object) -> None:
    deep = [[{"long " * n: [value, "text " * 1500]} for n in range(70)], [value] * 300]
    for each in ([value] * 150, deep, {f"{n}" * n: value for n in range(1, 150)}, dict.fromkeys(range(150), value)):
        _, blob = SERDE.dumps_typed(each)
        expected = chunks.cut(blob, True)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(chunks, "PORTION", 7)
            assert chunks.cut(blob, True) == expected


@pytest.mark.parametrize("place", [0, 7, 49, 99])
@pytest.mark.parametrize("entry", [b"\xd9\x01k\xc0", b"\x01\xc0", b"\xa1\xff\xc0", b"\xc1\xc0", b"\xa2k"])
def test_one_bad_entry_of_a_map_leaves_it_uncut_in_portions_as_at_once(
    monkeypatch: pytest.MonkeyPatch, place: int, entry: bytes
) -> None:
    """A key in a longer form than needed, one that is no text, a byte that msgpack does not have, an entry without value."""
    entries = [b"\xa3k%02d\xd9\xc8%s" % (n, b"v" * 200) for n in range(100)]
    entries[place] = entry
    blob = b"\xde\x00\x64" + b"".join(entries)
    assert chunks.cut(blob, True)[1] == [blob]
    monkeypatch.setattr(chunks, "PORTION", 7)
    assert chunks.cut(blob, True)[1] == [blob]


@pytest.mark.parametrize("value", [{f"key {n}": [n, "v"] for n in range(20_000)}, list(range(20_000))], ids=["dict", "list"])
def test_no_call_of_a_decoder_makes_more_than_a_portion(monkeypatch: pytest.MonkeyPatch, value: object) -> None:
    found: list[int] = []

    class Watched:
        def __init__(self, decoder: Any) -> None:
            self._decoder = decoder

        def decode(self, container: Any) -> Any:
            made = self._decoder.decode(container)
            found.append(len(made))
            return made

    for name in ("_array", "_map"):
        monkeypatch.setattr(chunks, name, Watched(getattr(chunks, name)))
    cut(value)
    assert len(found) == 4
    assert sum(found) == 20_000
    assert max(found) <= chunks.PORTION


def test_appending_to_a_list_adds_at_most_two_chunks() -> None:
    _, before = cut([message(n) for n in range(500)])
    _, after = cut([message(n) for n in range(501)])
    assert len(set(after) - set(before)) <= 2


def test_trimming_a_list_changes_few_chunks() -> None:
    _, before = cut([message(n) for n in range(500)])
    _, after = cut([message(n) for n in range(1, 501)])
    assert len(set(after) - set(before)) <= 6  # of about 70: boundaries meet again soon


def test_editing_one_of_many_files_changes_few_chunks() -> None:
    files = {f"file-{n}.py": "".join(random.Random(n).choices("abc\n", k=1500)) for n in range(200)}
    _, before = cut({"files": files})
    _, after = cut({"files": {**files, "file-77.py": "changed"}})
    assert len(set(after) - set(before)) <= 2


def test_a_list_within_a_pydantic_state_is_cut_too() -> None:
    _, before = cut({"state": {"messages": [message(n) for n in range(300)], "other": 1}})
    _, after = cut({"state": {"messages": [message(n) for n in range(301)], "other": 2}})
    assert len(set(after) - set(before)) <= 3


def test_headers_of_containers_stay_out_of_chunks() -> None:
    segments, _ = cut([message(n) for n in range(500)])
    assert segments[0] == b"\xdc\x01\xf4"


def test_appending_references_leaves_pages_as_they_were() -> None:
    digests = [random.Random(n).randbytes(16) for n in range(2000)]
    before, _ = chunks.paginate(digests[:-1])
    after, rest = chunks.paginate(digests)
    assert len(set(after) - set(before)) <= 1
    assert b"".join(b"".join(page) for page in after) + b"".join(rest) == b"".join(digests)
    assert all(chunks.PAGE_MIN <= len(page) <= chunks.PAGE_MAX for page in after)


def test_short_reference_lists_have_no_pages() -> None:
    digests = [random.Random(n).randbytes(16) for n in range(chunks.PAGE_FROM)]
    assert chunks.paginate(digests) == ([], tuple(digests))


def test_cutting_a_long_list_does_not_set_off_the_garbage_collector() -> None:
    _, blob = SERDE.dumps_typed([message(n, chunks.RUN_MAX) for n in range(2_000)])
    begun: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        begun.append(info["generation"])

    thresholds = gc.get_threshold()
    gc.collect()
    gc.callbacks.append(note)
    try:
        gc.set_threshold(700, 10, 10)
        _, pieces = chunks.cut(blob, True)
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(note)
    assert len(pieces) > 2_000
    # a full collection, which looks through the whole process while nothing else of it runs, comes after a hundred of the young
    assert len(begun) // 2 < 20
