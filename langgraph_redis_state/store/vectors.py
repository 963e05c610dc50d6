"""Semantic search: which texts of an item are embedded, and how vectors stand in a vector set. Pure functions, no I/O.

Each bucket has one vector set (Redis 8). An element is one text of an item: its number, 2 bytes, and the item's field. Its
attributes are ``{"s": [...]}``, with a hash (xxh3, 64 bits, hex) of each beginning of its namespace, so that a search below a
prefix is a filter on one of them. Vectors are stored as they are (FP32, `NOQUANT`), and compared by the cosine.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from langgraph.store.base import Op, PutOp, SearchOp, ensure_embeddings, get_text_at_path, tokenize_path
from xxhash import xxh3_64_hexdigest

from .. import validation
from .items import space_name

MOST = 1000
"""Texts of one item at most."""


class Asked(NamedTuple):
    """The texts that a batch needs the vectors of, each once."""

    documents: list[str]
    queries: list[str]


class Vectors(NamedTuple):
    """The vectors of these texts, as they are sent."""

    documents: Mapping[str, bytes] = {}
    queries: Mapping[str, bytes] = {}


class Index:
    """LangGraph's `IndexConfig`: `dims`, `embed` and `fields` (["$"]: the whole value as one text)."""

    def __init__(self, config: Any) -> None:
        if not isinstance(config, Mapping) or not {"dims", "embed"} <= config.keys():
            raise ValueError(f"index is a mapping with 'dims', 'embed' and maybe 'fields', not {config!r}")
        self.dims = validation.whole(config["dims"], "index: dims", 1)
        self.embeddings = ensure_embeddings(config["embed"])
        self._paths = [_path(each) for each in config.get("fields") or ["$"]]

    def texts(self, op: PutOp) -> list[str]:
        """Those of an item that are embedded."""
        if op.value is None or op.index is False:
            return []
        paths = self._paths if op.index is None else [_path(each) for each in op.index]
        found = [text for path in paths for text in get_text_at_path(op.value, path)]
        if len(found) > MOST:
            raise ValueError(f"item {op.key!r} of namespace {op.namespace!r}: {len(found)} texts to embed, at most {MOST}")
        return found

    def asked(self, ops: Iterable[Op]) -> Asked:
        documents, queries = dict[str, None](), dict[str, None]()
        for op in ops:
            if isinstance(op, PutOp):
                documents.update(dict.fromkeys(self.texts(op)))
            elif isinstance(op, SearchOp) and op.query:
                queries[op.query] = None
        return Asked(list(documents), list(queries))

    def packed(self, asked: Asked, documents: Sequence[Sequence[float]], queries: Sequence[Sequence[float]]) -> Vectors:
        """Raises ValueError if there are not as many vectors as texts, or one has other dimensions."""
        pairs = ((asked.documents, documents), (asked.queries, queries))
        found = []
        for texts, vectors in pairs:
            if len(texts) != len(vectors) or any(len(vector) != self.dims for vector in vectors):
                sizes = sorted({len(vector) for vector in vectors})
                raise ValueError(
                    f"index: the embeddings gave {len(vectors)} vectors for {len(texts)} texts, of {sizes} numbers; dims says "
                    f"{self.dims}"
                )
            found.append({text: struct.pack(f"<{self.dims}f", *vector) for text, vector in zip(texts, vectors, strict=True)})
        return Vectors(*found)


def _path(text: str) -> Any:
    return text if text == "$" else tokenize_path(text)


def attributes(namespace: tuple[str, ...]) -> bytes:
    names = ", ".join(f'"{_hash(namespace[:depth])}"' for depth in range(1, len(namespace) + 1))
    return f'{{"s": [{names}]}}'.encode()


def below(prefix: tuple[str, ...]) -> bytes:
    """The filter for all that stands below a prefix; empty for everything."""
    return f'"{_hash(prefix)}" in .s'.encode() if prefix else b""


def _hash(namespace: tuple[str, ...]) -> str:
    return xxh3_64_hexdigest(space_name(namespace))
