"""Semantic search without a server that has it: what is embedded, and the error. With one: integration_tests/test_stores.py."""

from __future__ import annotations

from typing import Any

import pytest
from keeping import Make
from langgraph.store.base import PutOp, SearchOp

from langgraph_redis_state import RedisStore, ServerRefusedError
from langgraph_redis_state.store import vectors
from langgraph_redis_state.store.vectors import Asked, Index

HERE = ("users", "ada")


def embed(texts: list[str]) -> list[list[float]]:
    return [[float(len(text)), 1.0] for text in texts]


INDEX: Any = {"dims": 2, "embed": embed, "fields": ["title", "parts[*].text"]}


async def test_a_server_without_vector_sets_is_named_before_anything_is_written(make: Make, raw: Any, prefix: str) -> None:
    store = make(index=INDEX)
    for call in (
        lambda: store.put(HERE, "k", {"title": "x"}),
        lambda: store.search(HERE, query="x"),
        lambda: store.get(HERE, "k"),
    ):
        with pytest.raises(ServerRefusedError, match="vector sets, which Redis has"):
            call()
    with pytest.raises(ServerRefusedError, match="vector sets"):
        await store.aput(HERE, "k", {"title": "x"})
    assert list(raw.scan_iter(match=f"{prefix}:*", count=1000)) == []


def test_the_texts_of_a_batch_are_embedded_once_each() -> None:
    value = {"title": "t", "parts": [{"text": "a"}, {"text": "t"}], "other": "o"}
    ops = [
        PutOp(HERE, "1", value),
        PutOp(HERE, "2", {"title": "t"}),
        PutOp(HERE, "3", value, index=["other"]),
        PutOp(HERE, "4", value, index=False),
        PutOp(HERE, "5", None),
        SearchOp(HERE, query="q"),
        SearchOp((), query="q"),
        SearchOp((), query=""),
    ]
    index = Index(INDEX)
    assert index.texts(ops[0]) == ["t", "a", "t"]  # type: ignore[arg-type]
    assert index.asked(ops) == Asked(["t", "a", "o"], ["q"])
    assert Index({"dims": 2, "embed": embed}).texts(PutOp(HERE, "k", {"b": 1, "a": 2})) == ['{"a": 2, "b": 1}']
    packed = index.packed(Asked(["t"], ["q"]), [[1.0, 0.5]], [[0.0, -2.0]])
    assert packed.documents == {"t": b"\0\0\x80\x3f\0\0\0\x3f"}
    assert packed.queries == {"q": b"\0\0\0\0\0\0\0\xc0"}


def test_attributes_name_each_beginning_of_a_namespace() -> None:
    assert vectors.attributes(HERE) == b'{"s": ["4ce8a257f7c83669", "5af6c0424801c38f"]}'
    assert vectors.below(HERE) == b'"5af6c0424801c38f" in .s'
    assert vectors.below(()) == b""


def test_embeddings_that_do_not_fit_and_options_that_are_wrong_are_refused(url: str) -> None:
    index = Index(INDEX)
    for documents in ([], [[1.0]], [[1.0, 2.0, 3.0]]):
        with pytest.raises(ValueError, match="dims"):
            index.packed(Asked(["t"], []), documents, [])
    for wrong in ({"dims": 2}, {"dims": 0, "embed": embed}, ["x"], {"embed": embed}):
        with pytest.raises(ValueError, match="index"):
            RedisStore(url, index=wrong)  # type: ignore[arg-type]
