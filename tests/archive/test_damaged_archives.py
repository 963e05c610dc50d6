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
AAXSAgAAHNt4nO1Ye0xTZxT/LnZDJzBwvtAozXwwp2DvpYXy0LFg5ms+tsAMsnkttEJDvS29LbVs0YIOVKYbIopEdDyUoEOJqOB06gQSOrcMNaKgYsTn8BEX39ro
2q/95MvnXeKyP25MOL9ye+4Jved37jn33O87AICAKb6OrJX1jddk44Z0elWog7MBAF+D9iUypTgALk5+eZnGwpK2cVvY6bpcvXoM4hQmDiAn/7YB2g2/qM6NeDZv
zuO+x1I9nJgwcQA5BdyfsaNlaOxF79oDV1Un3/PxcKIjxAHkNP6Yd87VM92D9m/rnl1fFLgAcVKIA8gpZo2q4/D2fZafbuZPjUkqmoxyR4sDN6cLzWU500PleTsH
rN3rM+cpqvFwcQA5xfWJ/u30GEtezvP6OxOj73yHchcpDiAn/rhsVWXe4M7IDRnLB34blIg4hYkDyMmc4Ai8u3nitik/H5ozauNMDeIULg4gp8yDR3TtB++fTLXG
zPz+4qpDqJ4ixAHkZMktVafOv2I+0fS8yzbiUiPipBAHkJM1+ItrzW311SW+I/v9rs86gzjR4gByKvxkUmnjmnc7lwYU7XqYvzwZ9SeZOHBz6h66szXUTxu7NeZu
3KxlBxEnhThwc/q775fdJdMWcWn6/hn2e/nouRMpeZDTxk/tIwv/unyv1Fo8uybdPxrVk0jJg5zqRuedUTeE+H3wmN90OSEzFnGKFAeQ07G0R3NvxS/ZdrNpyGcN
Pl2lqJ7k4gByavxKmXXhSfetXfats6paVyehehJJICe749QDi2n043EZ0dXlBV0Myp1cHEBObVWJwx5EDV62OTD4hwmbPl4PgGQv6JDUWnqlV3qlV94Qgc2sY3/U
+zMBLTmy5ZLkemf/FtT0leIAcrp0wPdukKXmQHTl7iBFccsWxEkuDiCnGwMHPRwcm2Htau8Xd3w6uI9eRCIJ5HTbuIK7rayjopc+WZAf4etAiwiRxM3JWjy1Ld1x
crKl5tG6yx1DUe5Emi64OM1VrC95mmy0XrElh7asLQvdDABlI/NJboTIhSw5hCMXJuTmjhxokBtSctBILlLJxT25OCPvMzkYIJ8hchBFbtrJ4RnZF8hhCLlJI4dK
ZG0KDAzHxgF6kUzlKucQeAh3HZTotKfUJXVU+ajAw7udvwGU8887KGHfimIKnnkBKH6uLZGPmsw0ucx+dRvXx2jmwNvDlMqW8x1/ejmm/fpEnhgICqsW86kGVUp6
M9W6LrcsU1KuVR8tN/HtUuemQhEic33iZYoo+AmFNBXjZbIomaw2JU3FcRodm6kx8lo9x3eC4Ts8NqlMRvXoNKYzmB6G6XJMV2B6OKZHYLoS0yN7dBrzS2N+acwv
jfmlMb805pfG/NKYXxrzS2N+Gcwvg/llML8M5pfB/DIKqoyjatBtZHmNhsuuZlktZzCbWNZWazaoVSaNmvX8gD+6YjuvNxtTNJU6vd5QyZs0BlBlUBk1nIm3bXem
mdWqK5xf58Hw9VhGUKYLqCzMTAubGWFzmLBZLmxWCJvDhc0RwmalsDlS0EwLR0kLR0kLR0kLR0kLR0kLR0kLR0kLR0kLR0kLR8kIR8kIR8kIR8kIR8kIR8ngURaW
ceisiXJ1pyFxvDk5qrEaqDipVi3VL5Iutkr1Fs7Zt8bAjtbgal2wg10YFJzUj/I0M7fsgUdb0Duur4XA5jG/YgAgvvlen7islM/zA677rC6cFNrTvpr2/M/ulV3G
ef+XZ3D5vz+D2T+2j36dfl/gvI+VnFmna3LF9tbUdI3B5FSUFPDxl55t4NvqfB8++yZn0qm+r/v+AGPnve5/nqbcCdHC/NS/zE+C5XZ8CEwqfAMB10sJHshhgCsr
EpOKT69ImiGP9fvQf4IltzV8wPyzoKjSoDKlVej0qT018we8ykLC2ZQbyaN4isKLwV0Zy168cMCLjyhK/MiuWXJz5Tm73wlLnt1z8R0sa9Tw5sUaln1ZAV4FjV7/
AN3+BlaUKNBjl0I1AU4C9so8614eAwAAAAIAAAAGAJQgBAKQ32wL4jqrxf1L0FT09/U7hQUAAAADAAAADQCRlqF0xAA8zQYlAKCrgPZgMj6sTWchZ3KnOFe6AAAA
AAAABmEAAAAD+LP6lz1NMNztpshcIHc5sQAAAAAAAAAAAAAAAAAAAAAAAAAAiItWN+uq+IbUxHsEV6oOBExHUlNBUkNIAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
AAAAAAAAAAAAAAAAUKm02wdEhPJAaUX2CWhArw==
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
