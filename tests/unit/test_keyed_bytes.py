"""The bytes of every format under a key: `keyed_vectors.json` has inputs and outputs, so that another implementation can check
itself. Here they are computed twice: from docs/layout.md with primitives alone, and by the package."""

from __future__ import annotations

import hashlib
import json
import zlib
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any
from uuid import UUID

import ormsgpack
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from damaging import IDS
from langgraph.checkpoint.serde.types import RESUME
from shapes import at, id_of

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.storage import records, seals, thread_fields
from langgraph_redis_state.storage.chunks import paginate
from langgraph_redis_state.storage.codec import CompressionType
from langgraph_redis_state.storage.keys import ThreadKeys
from langgraph_redis_state.storage.names import HiddenNames
from langgraph_redis_state.storage.records import RecordKey
from langgraph_redis_state.storage.seals import EncryptingSeal, Integrity
from langgraph_redis_state.storage.statements import COLD, Statement, in_order, mark_of, open_frozen, seal_frozen


def plain(found: Any) -> Any:
    """Texts of hex as bytes."""
    if isinstance(found, dict):
        return {name: value if name == "what" else plain(value) for name, value in found.items() if name != "about"}
    return [plain(each) for each in found] if isinstance(found, list) else bytes.fromhex(found)


VECTORS = json.loads((Path(__file__).parent / "keyed_vectors.json").read_text("utf-8"))
GOLDEN_FIELDS = {bytes.fromhex(name): bytes.fromhex(content) for name, content in VECTORS["golden"].pop("fields").items()}
V = plain(VECTORS)
SECRET, PREFIX, THREAD = V["secret"], V["prefix"], V["thread"]
KEYS, NAME_KEYS = V["thread_keys"], V["name_keys"]


def each(*path: str) -> Any:
    found = V
    for name in path:
        found = found[name]
    return pytest.mark.parametrize("given", found, ids=lambda given: given.get("what"))


# --- by docs/layout.md, with primitives alone ---


def lengths(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def blake(data: bytes, size: int = 16, **options: Any) -> bytes:
    return hashlib.blake2b(data, digest_size=size, **options).digest()


def hkdf(secret: bytes, info: bytes, size: int) -> bytes:
    return HKDF(SHA256(), size, b"lgrs 1", info).derive(secret)


def place_of(given: Any) -> bytes:
    return lengths(b"1", PREFIX, THREAD, given["kind"], given["namespace"], given["checkpoint"])


def cut(given: Any) -> tuple[bytes, bytes, bytes]:
    """Stamp, header and the rest of a stored record."""
    stored, behind = given["stored"], 20 + len(given["header"])
    return stored[:20], stored[20:behind], stored[behind:]


def test_ids_and_keys_come_from_the_secrets() -> None:
    for given in V["key_ids"]:
        assert bytes([blake(given["secret"], 4, person=b"lgrs-enc-key-id")[0] or 1]) == given["id"]
    for given in V["integrity_key_ids"]:
        assert blake(given["secret"], 32, person=b"lgrs-integrity") == given["key"]
        assert bytes([blake(given["key"], 4, person=b"lgrs-key-id")[0] or 1]) == given["id"]
    assert KEYS["info"] == lengths(b"thread", PREFIX, THREAD)
    assert hkdf(SECRET, KEYS["info"], 192) == KEYS["records"] + KEYS["chunks"] + KEYS["names"] + KEYS["tags"]
    assert [len(KEYS[name]) for name in ("records", "chunks", "names", "tags")] == [64, 64, 32, 32]
    assert NAME_KEYS["info"] == lengths(b"names", PREFIX)
    assert hkdf(V["name_secret"], NAME_KEYS["info"], 96) == NAME_KEYS["names"] + NAME_KEYS["digests"]


@each("chunks")
def test_a_chunk_is_decrypted(given: Any) -> None:
    stored = given["stored"]
    assert blake(given["plain"], key=KEYS["names"]) == given["name"]
    assert stored[:1] == bytes([128 + given["packed"][0]])
    assert stored[1:6] == len(given["plain"]).to_bytes(4, "big") + V["key_ids"][0]["id"]
    data = AESSIV(KEYS["chunks"]).decrypt(stored[6:], [given["name"], stored[:6]])
    assert data == given["packed"][5 if given["packed"][0] else 1 :]
    if given["what"] == "as it is":
        assert data == given["plain"]
    if given["what"] == "zlib":
        assert zlib.decompress(data) == given["plain"]


def test_a_page_is_made_of_names() -> None:
    found = V["page"]
    assert [blake(plain, key=KEYS["names"]) for plain in found["of"]] == found["chunks"]
    assert b"".join(page["content"] for page in found["pages"]) + b"".join(found["rest"]) == b"".join(found["chunks"])
    assert [blake(page["content"]) for page in found["pages"]] == [page["name"] for page in found["pages"]]


@each("records")
def test_a_record_is_decrypted(given: Any) -> None:
    stamp, header, sealed = cut(given)
    assert header == given["header"]
    assert header[1] & 4
    assert header[2:3] == V["key_ids"][0]["id"]
    assert AESSIV(KEYS["records"]).decrypt(sealed, [place_of(given), header]) == given["packed_body"]
    field = given["kind"] + given["namespace"] + b"\0" + given["checkpoint"]
    marker = b"\0" + given["marker"] if given["marker"] else b""
    assert stamp == given["stamp"]
    assert hashlib.sha1(stamp[:16] + THREAD + b"\0" + field + marker).digest()[:4] == stamp[16:]


def test_pending_writes_are_a_list_of_records() -> None:
    found = V["pending_writes"]
    listed = b"".join(len(record).to_bytes(4, "big") + record for record in found["records"])
    assert b"\1" + len(found["records"]).to_bytes(3, "big") + listed == found["content"]
    assert set(found["records"]) <= {given["stored"] for given in V["records"]}


def test_a_tag_is_under_a_key() -> None:
    stored, names = V["tag"]["stored"], V["tag"]["names"]
    place = lengths(b"1", PREFIX, THREAD, V["tag"]["field"], b"", b"")
    head = b"\5" + V["key_ids"][0]["id"]
    assert stored == head + blake(place + lengths(head, names), key=KEYS["tags"]) + names


def test_a_statement_and_a_frozen_entry_are_decrypted() -> None:
    found, frozen = V["statement"], V["frozen"]
    digest = b""
    for marker, checksum in found["markers"]:
        digest = blake(digest + marker + checksum)
    assert digest == found["writes"]
    first, last = found["heads"]
    entries = [[*last, found["record"], b"", 6, 2], [*first, found["record"], digest, 7, 0]]
    told = [int(found["revision"]), int(found["round"]), found["life"], found["heads"], entries]
    body = [found["life"], found["record"], digest]
    for stored, content, place in (
        (found["stored"], told, lengths(b"1", PREFIX, THREAD, b"Z", b"", b"")),
        (frozen["stored"], body, lengths(b"1", PREFIX, THREAD, b"F", b"", frozen["checkpoint"])),
    ):
        assert stored[:3] == b"\1\4" + V["key_ids"][0]["id"]
        plain = AESSIV(KEYS["records"]).decrypt(stored[3:], [place, stored[:3]])
        assert ormsgpack.unpackb(plain) == content


def test_names_are_encrypted_or_digests() -> None:
    def hidden(kind: bytes, text: bytes) -> bytes:
        return urlsafe_b64encode(AESSIV(NAME_KEYS["names"]).encrypt(b"\1" + text, [kind])).rstrip(b"=")

    def told(*parts: bytes) -> bytes:
        return blake(b"\0".join(parts), key=NAME_KEYS["digests"])

    found = V["names"]
    for kind, name in ((b"thread", "threads"), (b"ns", "namespaces"), (b"tag", "tags")):
        for given in found[name]:
            empty = kind == b"ns" and not given["plain"]
            assert given["stored"] == (b"" if empty else hidden(kind, given["plain"]))
    for given in found["runs"]:
        run = str(UUID(bytes=told(b"run", given["plain"]))).encode()
        assert given["stored"] == (run if given["plain"] else b"")
    for given in found["metadata"]:
        assert given["stored_key"] == told(b"key", given["key"]).hex().encode()
        value = told(b"value", given["key"], given["value"]).hex().encode()
        assert given["stored_value"] == (value if given["value"] else b"")
    assert found["fingerprint"] == told(b"fingerprint").hex()[:8].encode()
    assert found["layout"] == b"1 1 " + found["fingerprint"]
    ns, tag = hidden(b"ns", b"sub:1"), hidden(b"tag", b"good")
    assert [given["stored"] for given in found["fields"]] == [
        b"C\0id",
        *(b"C" + ns + b"\0id", b"W" + ns + b"\0id\0", b"W" + ns + b"\0id\0abcdef", b"H" + ns + b"\0id", b"Aid\0" + ns),
        *(b"G" + tag, b"S", b"D" + bytes(16)),
    ]
    name = hidden(b"thread", THREAD)
    assert [key.partition(b"}:")[2] for key in found["keys"]] == [
        *(b"t:" + name, b"i:" + name, b"threads", b"expiry", b"runs", b"m", b"x:" + name)
    ]


# --- by the package ---


@pytest.fixture(scope="module")
def seal() -> EncryptingSeal:
    return EncryptingSeal(Integrity((), False), [SECRET], (PREFIX, THREAD))


def test_the_package_gives_the_same_ids_keys_and_names() -> None:
    for given in V["key_ids"]:
        assert bytes([seals.key_id(given["secret"])]) == given["id"]
    for given in V["integrity_key_ids"]:
        assert bytes([Integrity([given["secret"]], False).signing_id]) == given["id"]
    names = HiddenNames(V["name_secret"], PREFIX.decode())
    found = V["names"]
    assert names.fingerprint.encode() == found["fingerprint"]
    for given in found["threads"]:
        assert (names.thread(given["plain"]), names.thread_of(given["stored"])) == (given["stored"], given["plain"])
    for given in found["namespaces"]:
        assert (names.ns(given["plain"]), names.ns_of(given["stored"])) == (given["stored"], given["plain"])
    for given in found["fields"]:
        assert (names.field(given["plain"]), names.field_of(given["stored"])) == (given["stored"], given["plain"])
    assert [names.run(given["plain"]) for given in found["runs"]] == [given["stored"] for given in found["runs"]]
    for given in found["metadata"]:
        assert names.metadata(given["key"], given["value"]) == (given["stored_key"], given["stored_value"])
    assert list(ThreadKeys(PREFIX.decode(), THREAD, names).all) == found["keys"]


@each("chunks")
def test_the_package_reads_and_writes_these_chunks(seal: EncryptingSeal, given: Any) -> None:
    assert seal.name(given["plain"]) == given["name"]
    assert seal.unpack(given["name"], given["stored"], "here") == given["plain"]
    if given["what"] == "as it is":
        assert seal.pack(given["name"], given["plain"], CompressionType.NONE) == given["stored"]


@each("records")
def test_the_package_reads_and_writes_these_records(seal: EncryptingSeal, given: Any) -> None:
    place = RecordKey(PREFIX, THREAD, given["kind"], given["namespace"], given["checkpoint"])
    header, body = records.verified(given["stored"], place, seal)
    assert body == given["packed_body"]
    decrypted = records.moved(given["stored"], place, place, seal, seals.PLAIN)[1]
    assert records.moved(decrypted, place, place, seals.PLAIN, seal)[1] == given["stored"]
    assert (header.flags & records.WRITE > 0) == (given["kind"] == b"W")


def test_the_package_cuts_these_pages_and_lists_and_signs_this_tag(seal: EncryptingSeal) -> None:
    pages, rest = paginate(V["page"]["chunks"])
    assert [b"".join(page) for page in pages] == [page["content"] for page in V["page"]["pages"]]
    assert list(rest) == V["page"]["rest"]
    found = V["pending_writes"]
    place = RecordKey(PREFIX, THREAD, b"W", b"", IDS[1].encode())
    assert list(thread_fields.split_writes(found["content"], place)) == found["records"]
    assert thread_fields.joined_writes(found["records"]) == found["content"]
    place = RecordKey(PREFIX, THREAD, V["tag"]["field"], b"", b"")
    assert thread_fields.seal_tag(b"ns", b"id", place, seal) == V["tag"]["stored"]
    assert thread_fields.open_tag(V["tag"]["stored"], place, seal) == (b"ns", b"id")


def test_the_package_reads_and_writes_this_statement(seal: EncryptingSeal) -> None:
    place = RecordKey(PREFIX, THREAD, b"Z", b"", b"")
    statement = Statement.open(V["statement"]["stored"], place, seal)
    assert statement.seal(place, seal) == V["statement"]["stored"]
    entry = statement.entries[b"", V["frozen"]["checkpoint"]]
    place = RecordKey(PREFIX, THREAD, b"C", b"", V["frozen"]["checkpoint"])
    assert open_frozen(V["frozen"]["stored"], place, seal) == (statement.life, entry._replace(round=0, state=COLD))
    assert seal_frozen(statement.life, entry, place, seal) == V["frozen"]["stored"]
    place = place._replace(kind=b"W")
    marks = [mark_of(raw, place) for raw in V["pending_writes"]["records"]]
    assert list(in_order(marks, place).items()) == [(*each,) for each in V["statement"]["markers"]]


def test_an_encrypted_thread_of_the_first_release_is_read_written_and_copied(url: str, raw: Any) -> None:
    golden = V["golden"]
    options = {"encryption_key": SECRET, "name_key": V["name_secret"]}
    try:
        raw.set("golden:layout", golden["layout"])
        raw.hset(golden["hash"], mapping=GOLDEN_FIELDS)
        with RedisSaver(url, prefix="golden", **options) as saver:  # the index is rebuilt from the hash
            assert saver._engine.address("t").keys.hash == golden["hash"]
            found = saver.get_tuple(at("t"))
            assert found.checkpoint["channel_values"] == {f"channel {n:02}": f"{n:02}" * 60 for n in range(26)} | {"n": 1}
            assert found.pending_writes == [("task", RESUME, [True]), ("task", "log", "w" * 1200)]
            inner = saver.get_tuple(at("t", "sub:é"))
            assert (id_of(inner.config), inner.checkpoint["channel_values"]) == ("an id of my own", {"n": None})
            assert saver.tags("t") == {"good": IDS[0]}
            keys = saver._engine.address("t").keys
            assert raw.zrange(keys.all[1], 0, -1) == golden["index"]
            run = b"\x80" + UUID(keys.names.run(b"run").decode()).bytes
            assert golden["runs"] == [b"R" + run + b"\0" + keys.name, b"T" + keys.name + b"\0" + run]
            saver.copy_thread("t", "copy")
            assert len(list(saver.list(at("copy", None)))) == 2
            assert saver.rekey(["t"]) == 0
    finally:
        for key in raw.scan_iter(match="golden:*"):
            raw.delete(key)
