"""An archive that is damaged anywhere: the thread is named, and the others are read. Passphrases, and the bytes of format 1."""

from __future__ import annotations

import base64
import random
from pathlib import Path
from typing import Any

import pytest
from damaging import IDS
from exercise import BIG
from langgraph.checkpoint.serde.types import RESUME
from shapes import at, checkpoint, metadata
from soak import times

from langgraph_redis_state import ArchiveDamagedError, FormatError, InvalidConfigError, RedisSaver
from langgraph_redis_state.archive import ArchiveSaver, export_threads, frames, import_threads, verify_archive
from langgraph_redis_state.archive.reading import ArchiveReader
from langgraph_redis_state.archive.writing import ArchiveWriter

THREADS = ("one", "two", "three")


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "COST", 1)


def filled(saver: RedisSaver) -> dict[str, Any]:
    for name in THREADS:
        made = checkpoint({"x": f"the state of {name} " * 12, "n": 1})
        config = saver.put(at(name), made, metadata(), made["channel_versions"])
        saver.put_writes(config, [("x", name)], "task")
    return {name: list(saver.list(at(name))) for name in THREADS}


def read(path: Path, passphrase: str | None = None) -> tuple[dict[str, Any], list[str | None]]:
    """The threads that can be read, and those that errors name."""
    found, named = {}, list[str | None]()
    with ArchiveSaver(path, passphrase=passphrase) as file:
        named += [each.thread_id for each in file.problems]
        for name in file.threads:
            try:
                found[name] = list(file.list(at(name)))
            except ArchiveDamagedError as error:
                named.append(error.thread_id if repr(name) in str(error) else "unnamed")
    return found, named


@pytest.mark.parametrize("passphrase", [None, "a passphrase"])
@pytest.mark.usefixtures("cheap")
def test_a_flipped_bit_anywhere_names_the_thread_and_spares_the_others(
    saver: RedisSaver, tmp_path: Path, passphrase: str | None
) -> None:
    states = filled(saver)
    path = tmp_path / "file"
    export_threads(saver, path, passphrase=passphrase)
    content = path.read_bytes()
    with ArchiveReader(path, passphrase) as reader:
        entries = list(reader.entries.values())
    places = {n: entry.thread for entry in entries for n in range(entry.at, entry.at + entry.size)}
    assert sorted(places) == list(range(frames.HEAD, max(places) + 1)), "threads stand one behind the other"
    first = random.randrange(times(23, 1))
    for n in range(first, len(content), times(23, 1)):
        damaged = bytearray(content)
        damaged[n] ^= 1 << random.randrange(8)
        path.write_bytes(damaged)
        try:
            found, named = read(path, passphrase)
        except (FormatError, InvalidConfigError):
            pytest.fail(f"byte {n} keeps the whole file from being read")
        assert named == [places.get(n)], n
        assert found == {name: state for name, state in states.items() if name != places.get(n)}, n
        told = [each.thread_id for each in verify_archive(path, passphrase)]
        assert told == named, n


@pytest.mark.usefixtures("cheap")
def test_a_file_that_is_cut_gives_the_threads_before_the_cut(saver: RedisSaver, tmp_path: Path) -> None:
    states = filled(saver)
    path = tmp_path / "file"
    export_threads(saver, path)
    content = path.read_bytes()
    with ArchiveReader(path) as reader:
        ends = {entry.thread: entry.at + entry.size for entry in reader.entries.values()}
    for n in range(frames.HEAD, len(content), times(37, 1)):
        path.write_bytes(content[:n])
        found, named = read(path)
        assert found == {name: states[name] for name, end in ends.items() if end <= n}
        assert named
    path.write_bytes(content[: frames.HEAD - 1])
    with pytest.raises(FormatError, match="no archive"):
        ArchiveSaver(path)


def test_an_import_takes_what_is_whole_and_names_what_is_not(saver: RedisSaver, url: str, prefix: str, tmp_path: Path) -> None:
    states = filled(saver)
    path = tmp_path / "file"
    export_threads(saver, path)
    with ArchiveReader(path) as reader:
        entry = reader.entries["three"]
    content = bytearray(path.read_bytes())
    content[entry.at + entry.size // 2] ^= 1
    content[-1] ^= 1
    path.write_bytes(content)
    with RedisSaver(url, prefix=f"{prefix}-other") as other:
        report = import_threads(path, other)
        assert (report.threads, list(report.failures), len(report.problems)) == (2, ["three"], 1)
        assert "damaged; the other threads of the file can be read" in report.failures["three"]
        assert {each.thread_id: list(other.list(at(each.thread_id))) for each in other.list_threads()} == {
            name: states[name] for name in ("one", "two")
        }


def test_content_that_its_writer_did_not_make_is_damage(saver: RedisSaver, tmp_path: Path) -> None:
    """Frames that hold, around fields that do not: the checks of records, digests and references are made too."""
    filled(saver)
    export_threads(saver, tmp_path / "file")
    with ArchiveReader(tmp_path / "file") as reader:
        parts = {name: list(reader.section(entry)) for name, entry in reader.entries.items()}
    fields = {name: dict(fields[0]) for name, fields in parts.items()}  # type: ignore[arg-type]
    chunk = next(name for name in fields["one"] if name[:1] == b"D")
    record = next(name for name in fields["one"] if name[:1] == b"C")
    cases = {
        "moved": fields["one"],
        "lacks a chunk": {name: content for name, content in fields["one"].items() if name != chunk},
        "another chunk": fields["one"] | {chunk: b"\0other"},
        "a flipped bit": fields["one"] | {record: fields["one"][record][:-1] + b"?"},
        "no fields": None,
    }
    with ArchiveWriter(tmp_path / "forged") as writer:
        for name, case in cases.items():
            writer.begin("one" if name != "moved" else name)
            writer.add((case or {}).items())
            writer.end(name, b"", 1, 1, [])
        writer.entries[-1].thread = "another"
        writer.finish()
    assert [each.thread_id for each in verify_archive(tmp_path / "forged")] == [*list(cases)[:-1], "another"]


@pytest.mark.usefixtures("cheap")
def test_an_encrypted_file_shows_nothing_and_wants_its_passphrase(
    saver: RedisSaver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = filled(saver)
    path = tmp_path / "file"
    export_threads(saver, path, passphrase="right")
    content = path.read_bytes()
    for plain in (*THREADS, "task", "the state of"):
        assert plain.encode() not in content
    assert read(path, "right") == (states, [])
    with pytest.raises(InvalidConfigError, match="passphrase of the archive is wrong"):
        read(path, "wrong")
    with pytest.raises(InvalidConfigError, match="is encrypted; give its passphrase"):
        read(path)
    with pytest.raises(InvalidConfigError, match="may not be empty"):
        export_threads(saver, tmp_path / "other", passphrase="")
    export_threads(saver, tmp_path / "again", passphrase="right")
    assert (tmp_path / "again").read_bytes()[: frames.HEAD] != content[: frames.HEAD]
    export_threads(saver, tmp_path / "plain")
    assert read(tmp_path / "plain", "not needed") == (states, [])
    monkeypatch.setitem(__import__("sys").modules, "cryptography.hazmat.primitives.kdf.scrypt", None)
    with pytest.raises(InvalidConfigError, match=r"langgraph-redis-state\[encryption\]"):
        read(path, "right")


@pytest.mark.usefixtures("cheap")
def test_no_number_of_a_frame_is_used_twice_with_one_key(tmp_path: Path) -> None:
    seen: list[bytes] = []
    with ArchiveWriter(tmp_path / "file", "a passphrase") as writer:
        seal = writer._sealing.seal
        writer._sealing.seal = lambda header, payload: seen.append(header[1:5]) or seal(header, payload)  # type: ignore
        for attempt in range(3):
            writer.begin("t")
            writer.add([(b"name", b"%d" % attempt)])
            writer.end("t", b"", 0, 0, []) if attempt == 2 else writer._flush()
            writer.abandon() if attempt < 2 else None
        writer.finish()
    assert len(seen) == len(set(seen)) == 8
    with ArchiveReader(tmp_path / "file", "a passphrase") as reader:
        assert next(iter(reader.section(reader.entries["t"]))) == [(b"name", b"2")]


def test_large_fields_stand_in_several_frames(saver: RedisSaver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("langgraph_redis_state.archive.writing.FRAME_BYTES", 1000)
    made = checkpoint({"x": BIG, "y": random.randbytes(9000)})
    saver.put(at("t"), made, metadata(), made["channel_versions"])
    export_threads(saver, tmp_path / "file")
    with ArchiveReader(tmp_path / "file") as reader:
        assert len(list(reader.section(reader.entries["t"]))) > 4
    saver.delete_thread("t")
    assert import_threads(tmp_path / "file", saver).ok
    assert saver.get_tuple(at("t")).checkpoint["channel_values"] == made["channel_values"]  # type: ignore[union-attr]


def test_a_newer_format_and_a_file_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"something else" * 20)
    with pytest.raises(FormatError, match="no archive"):
        ArchiveSaver(path)
    newer = bytearray(frames.Head().packed()[: frames.HEAD - 16])
    newer[8] = 2
    path.write_bytes(newer + frames.digest(bytes(newer)))
    with pytest.raises(FormatError, match="format 2, and this version reads 1"):
        ArchiveSaver(path)
    with pytest.raises(FormatError, match="scrypt"):
        frames.sealing_of("x", frames.Head(cost=30))


GOLDEN = """
TEdSU0FSQ0gBAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABQqbTbB0SE8kBpRfYJaECvAQAAAAAAAAACAHTHrIw3OcgEj5t8gI3vPO5WAgAAAAEA
AAXaAgAAHNt4nO1Ze0xTVxg/F7uhExg4X2iUzqHOqXjPpYXy0LFg5ms+tugMulkLrdBQb0tvSy3btKADFXTDig8iKi8JOhwRJzqdOgsJnVuGGlFQMeJrw0dcfGuj
a0975OZ4l7jsj5slfF977ne/pPf7ffc79+s5vwsAGJEI4CJaRbtlLBqiPIMCn2IBQFJHlQ3bm1AM3EK5v/5h8puOryh05geQBMndQ4Bavr74SbLResWWHNG0tjRi
y7G0h7Nuzl5SeaNhwMf7AzpK7J0DdzVHBGkTtsXfSZy+7CAAPYxmFrw+SKFoOt/2u59r8s+PZUmhwF61mEs1qFLSG6nmdbmlmZIyrfpomYlrlTI0Ix9Lez6zaXks
+kQgmPLRNB1L07UpaSqW1eiUmRojp9WzXDsYvNPnk9I01WVDns3w7EieLePZcp4dxbOjebaCZ8d02ZAXF/LiQl5cyIsLeXEhLy7kxYW8uJAXF/LiMry4DC8uw4vL
8OIyvLiMnCplqRp8G5WcRsNmVyuVWtZgNimVtlqzQa0yadRK3w+4oyt2cHqzMUVTodPrDRWcSWMAVQaVUcOaONsOd5mVWnW5+3AeDF7PqwiudCGVxXNDYTcj7I4U
dsuE3XJhd5SwO1rYrRB2xwi6oXCWUDhLKJwlFM4SCmcJhbOEwllC4SyhcJZQOEtGOEtGOEtGOEtGOEtGOEuGn6W9lMVnDZSnOw1I5MzJsY5qoGKlWrVUv0i62CrV
W1h33xqOOlqlp3WhDnbhSYEhnPI1M6/sQaMt7A3PYSGw+dwvOQCY3Xi3R2JWyif5IdcDVtvHR3S1r4Y9/7F7ZZey/v/mGVz+z89g9vbW8Ffp94Xu+1jBmnW6Bk9u
IRMDXVkr6x3X6FED2v3K1SOz3c4vQOsSWiGOIkxBeZlGe3HLqK3KKbpcvXo4xhQpjiJMwS19tBt+Up0b8nTuzEc9j6X6MDGR4ijCFHJv6s6mgQkX/WsPXFWdfCvA
hwlGi6MI0+hj/jlXz3T221fZOaO+KHQBxiQXRxGm+DWqtsM7frB8dyN/Uvz8ogm4dlAc9WK60FiaMyVClrerz9q9ATOf4DkeJY4iTIk94n45PdySl/Os/va4uNsF
uHYx4ijCxB2nV1Xk9W+P2ZCxvO/XYUkYU6Q4ijCZ57hC72wZVznxx0Mz39k4TYMxRYmjCFPmwSO61oP3TqZa46d9c3HVITyfosVRhMmSW6JOnXfFfKLhWYdtyCUH
xiQXRxEm68hPrzW21FcXBw7t9as+6wzGBMVRhMn+4fgSx5o325eGFO1+kL88GfcnWhz1YnppL+fFJBdHvZj+6vlZZ/HkRWyavneG824+fu5EKh7CtPEj51D7n5fv
llg3zahJD47D80mk4iFMdeF5Z9T7xwa9+4jbfHlOZgLGFCOOIkwkV4Dnk0wcRZgcnyuyLjzuvLnbuW16VfPq+Xg+iSQIk9N16r7FFP5oVEZcdVlhB4NrJxNHEaaW
qqRB92P7L9sSOvLbMZs/WA+AZC9ok9RauqVbuqVb/ieCmlnbvthh0wCUHNl6SXK9vXcTbvoKcRRhunQg8E6YpeZAXMX3YfJNTVsxJpk4ijD90bffg/4JGdaO1l6J
x6eAe/iPSCRBmG4ZV7C3FHVU3NLHC/KjA114ESGSeDFZN01qSXednGCpebjucttAXDuR2AV3+NcmpWsMJrehoEBAsPTsfq6lLvDB0y9zxp/q+aovhUDILPJtDwCU
jZwU5G6KXA2TTB65uiF3iCQrQu5qSbaSXOmSOwRyhUcWi2QXyAeRZLPInT/JwJHNhWRUyJ0eyUyRE1yAdRwx91VLeJry0t9axIaXvWDD5+Qc3l2AKHT0vg94XgGi
gVzneThwiUnFpZfPnypLCHoveIwltzmqz7yzoKjCoDKllev0qV0M/W/oKguJYBO3vy07T1F86t3Lwy97/tyFLj6kKOl9p2bJjZXnnEEnLHlO38V3KpVGDWderFEq
X/DtfoUOv78BVeIIr7glJd/GBbCysP41WvZRV5YDAAAAAgAAAAYAlCAEApDfbAviOqvF/UvQVPT39TuFBQAAAAMAAAANAJGWoXTEADzNBi0AoA1E1w7MZ+Xf3LAO
tAGELkIAAAAAAAAGaQAAAANAHx75dtGs3DCvP9A3b9PZAAAAAAAAAAAAAAAAAAAAAAAAAACcJPxP7qIQfnvwP4JhWNZqTEdSU0FSQ0gBAAAAAAAAAAAAAAAAAAAA
AAAAAAAAAAAAAAAAAAAAAAAAAABQqbTbB0SE8kBpRfYJaECv
"""
"""An archive of format 1, with the thread of `test_released_bytes.py` and a tag. It stays readable, and is written the same."""


def test_an_archive_of_format_1_is_read_and_written_again_as_it_was(saver: RedisSaver, tmp_path: Path) -> None:
    (tmp_path / "golden").write_bytes(base64.b64decode(GOLDEN))
    assert verify_archive(tmp_path / "golden") == []
    assert import_threads(tmp_path / "golden", saver).ok
    tup, newest = saver.get_tuple(at("t", "", IDS[0])), saver.get_tuple(at("t", "sub:é"))
    assert tup is not None
    assert newest is not None
    assert tup.checkpoint["channel_values"]["channel 07"] == "07" * 60
    assert tup.pending_writes == [("task", RESUME, [True]), ("task", "log", "w" * 1200)]
    assert (newest.checkpoint["id"], saver.tags("t")) == ("an id of my own", {"kept": IDS[0]})
    assert list(saver.verify("t")) == []
    export_threads(saver, tmp_path / "again")
    with ArchiveReader(tmp_path / "golden") as old, ArchiveReader(tmp_path / "again") as new:  # zlib may compress otherwise
        parts = [[part for entry in each.entries.values() for part in each.section(entry)] for each in (old, new)]
    assert parts[0] == parts[1]
