"""The bytes of released versions stay readable, and new records are the same byte by byte."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from damaging import IDS
from langgraph.checkpoint.serde.types import RESUME
from shapes import at, checkpoint, id_of, metadata

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.caching.parts import Parts
from langgraph_redis_state.storage import bodies, records, thread_fields
from langgraph_redis_state.storage.bodies import Value
from langgraph_redis_state.storage.chunks import PAGE_FROM, paginate
from langgraph_redis_state.storage.codec import CHUNK_MAX, CompressionType, digest, pack, unpack
from langgraph_redis_state.storage.keys import ThreadKeys, layout_key
from langgraph_redis_state.storage.records import STAMP, RecordKey, References
from langgraph_redis_state.storage.seals import Integrity, Seal


@pytest.fixture
def saver(url: str, prefix: str) -> Iterator[RedisSaver]:
    """One that remembers no chunks: all it gives comes from the server."""
    with RedisSaver(url, prefix=prefix, cache_bytes=0) as opened:
        yield opened


def golden_thread(saver: RedisSaver) -> None:
    """What `GOLDEN` was made from, with the prefix "golden". The thread's clock fields are those of the day it was made."""
    values = {f"channel {n:02}": f"{n:02}" * 60 for n in range(26)} | {"n": 1}
    made = checkpoint(values, id=IDS[0])
    config = saver.put(at("t"), made, metadata(run_id="run"), made["channel_versions"])
    saver.put_writes(config, [("log", "w" * 1200), (RESUME, [True])], "task", "path")
    made = checkpoint({"n": None}, {"n": f"{7:032}"}, id="an id of my own")
    saver.put(at("t", "sub:é", IDS[0]), made, metadata(parents={"": IDS[0]}), made["channel_versions"])


GOLDEN = """
430031663061303030302d303030302d363030302d383030302d303030303030303030303030

01a1fc47f9df0000000001000000071f8f41c671010000000100020000000000000e350000000c6435949afa627279e480622ec88ea12e9cc268f750ec54
78a5ebc41751b80ce29d93ea18abd02e0e69409f3cf0434d7fbb00000372756e00edd7d19f15137d856753834e593abe380100000443063c04b401d09286
a17604a26964c0ae01b1352d30352d30355430353a030002ae011f35ae010443de001baa2b0346203030010c0017310c0017320c0017330c0017340c0017
350c0017360c0017370c0017380c0016390c0017317800173178001731780017317800173178001731780017317800173178001731780017317800173278
00173278001732780017327800173278005b323501a16e1b05178189020d88042dc084d3011c00bd0386a372756edc001b9486011430ea013791017a1700
1f311700031f321700031f331700031f341700031f351700031f361700031f371700031f381700031f391700021f31e600031f31e600031f31e600031f31
e600031f31e600031f31e600031f31e600031f31e600031f31e600031f31e600031f32e600031f32e600031f32e600031f32e600031f32e600031832e600
e093a16ea76d73677061636bc40101

437375623ac3a900616e206964206f66206d79206f776e

01a1fc47f9e0000000000200000000ddfaef6b980102000000000000000000000000b20000000000801f0a0000000060008000000000000000801f0a0000
0000600080000000000000000000b988aaf90a82d0a6db75a1fe63c1a52001000000c8053c04b4c4b29286a17604a26964c0ad01b1352d30352d30355430
353a030002ad011f35ad01044a81a16e074e0117814e010d4d031ec0980014008202d181a0d92431663061303030302d050064363030302d380f00040200
b09193a16ea46e756c6cc400

570031663061303030302d303030302d363030302d383030302d303030303030303030303030

010000020000006901a1fc47f9e00000000002000000005512cf38110101000000000100000000000004b300000004b3d6a7591af53a167f9c1927902c99
419480000000047461736b305343f8c221a835110342ad95af0d450095a470617468a36c6f67a76d73677061636b9101cd04b30000005801a1fc47f9e000
00000002000000004465dbf8a401010000000000000000000000000200000000007ffffffc047461736b10bfbd684fb4e6c9291d90e82569053501000000
1e6795a4706174682101044c0450c40291c302

440dfc7a88b7c3e6302917de02a3642781

010000007a4fd978303802005e503830383038

440e877672939ad6299e5f496c866f6425

010000007a4fd978303302005e503330333033

4410d6126996bd61db1dfb574ff808c267

010000007a4fd978323302005e503332333233

4411f44aaac81840df07b0b9e561d2130c

010000007a4fd978313702005e503731373137

442bc20782e5d7ea15b6a5ea4eb795195e

010000007a4fd978313502005e503531353135

443c8d61dabea6b577aceb8b473c5b953e

010000007a4fd978323102005e503132313231

443cddc5a182492e3487ab128eb40c4ffa

010000007a4fd978303602005e503630363036

4443033bcad525778782feb7ee2f3bee8c

010000007a4fd978313902005e503931393139

4473cb3089a48716de3996718314851f59

010000007a4fd978313302005e503331333133

447555fc19f09c2fa544babc4f23974b65

010000007a4fd978313602005e503631363136

4476bbbf6cd9bbf4d267793c4b8fdf89bc

010000007a4fd978303702005e503730373037

4477869d64675ae475d1c4fee2801de1c3

010000007a4fd978303502005e503530353035

44792756e6c5d6b7a99a0d1e09cc6f7ad7

010000007a4fd978303102005e503130313031

4493463d9dc38d0fde7e1195aef68b8362

010000007a4fd978323002005e503032303230

4493ea18abd02e0e69409f3cf0434d7fbb

010000007a4fd978323502005e503532353235

4493f1085cea9a48666e686f0b71c9f38b

010000007a4fd978313002005e503031303130

44974cc91e93e9e3f39d79984ead6b103b

010000007a4fd978303202005e503230323032

44b32487d764b82d0e28f87399e3557640

010000007a4fd978303902005e503930393039

44c268f750ec5478a5ebc41751b80ce29d

010000007a4fd978323402005e503432343234

44c35d387addf9eaecaec99f4da7d08a5b

010000007a3fd9783101005f503131313131

44c9fcd3f5777424f829713ba9a291e232

010000007a4fd978303402005e503430343034

44d6a7591af53a167f9c1927902c994194

01000004b34fda04b0770100ffffffff9b507777777777

44dab63a224b003104bf9ee104e7de0bc8

010000007a4fd978313802005e503831383138

44e1b90df01f77adb93ba4af1f3598c89e

010000007a4fd978313402005e503431343134

44e81415f616407179e2d90943cb4900f4

010000007a22d97882010f02005a503030303030

44ed72846eed38b3013b7ef95e8b370dfc

010000007a3fd9783201005f503232323232

44ed799847d66bfcd23e77adf792e3da18

010000007a4fd978313202005e503231323132

5035949afa627279e480622ec88ea12e9c

e81415f616407179e2d90943cb4900f4792756e6c5d6b7a99a0d1e09cc6f7ad7974cc91e93e9e3f39d79984ead6b103b0e877672939ad6299e5f496c866f
6425c9fcd3f5777424f829713ba9a291e23277869d64675ae475d1c4fee2801de1c33cddc5a182492e3487ab128eb40c4ffa76bbbf6cd9bbf4d267793c4b
8fdf89bc0dfc7a88b7c3e6302917de02a3642781b32487d764b82d0e28f87399e355764093f1085cea9a48666e686f0b71c9f38bc35d387addf9eaecaec9
9f4da7d08a5bed799847d66bfcd23e77adf792e3da1873cb3089a48716de3996718314851f59e1b90df01f77adb93ba4af1f3598c89e2bc20782e5d7ea15
b6a5ea4eb795195e7555fc19f09c2fa544babc4f23974b6511f44aaac81840df07b0b9e561d2130cdab63a224b003104bf9ee104e7de0bc843033bcad525
778782feb7ee2f3bee8c93463d9dc38d0fde7e1195aef68b83623c8d61dabea6b577aceb8b473c5b953eed72846eed38b3013b7ef95e8b370dfc10d61269
96bd61db1dfb574ff808c267

53

3120313739353233333933373838373036382033203220322032203237203233323720353032302034333735203433373520313233343536373839303132
333435206239393737393935
"""


MANY_WRITES = """
53

3120313739353836383436303835393538382037203020302037203020373834203720302030203132333435363738393031323334352033303963643063
63

570031663061303030302d303030302d363030302d383030302d303030303030303030303030

010000060000005801a2221a073b000000000100000000440c7f7426010100000000000000000000000001000000000080000000067461736b2030054718
3585912ee8348722ecca0954ca0095a470617468a16ea76d73677061636bc40100010000005801a2221a073d00000000020000000044249c021d01010000
0000000000000000000001000000000080000000067461736b20313b79dbd121ba642f1045a8a799f94a8c0095a470617468a16ea76d73677061636bc401
01010000005801a2221a073e00000000030000000044302fed0d010100000000000000000000000001000000000080000000067461736b203239515fa196
1a9ef6573489c14d6269320095a470617468a16ea76d73677061636bc40102010000005801a2221a073e000000000400000000444da2cc88010100000000
000000000000000001000000000080000000067461736b2033fe95604dc2a3bc78027d463c98d19d790095a470617468a16ea76d73677061636bc4010301
0000005801a2221a073f00000000050000000044b705afe7010100000000000000000000000001000000000080000000067461736b2034178d1bf0f0a36a
9a9e6a2151f7878bc10095a470617468a16ea76d73677061636bc40104010000005801a2221a073f0000000006000000004449dc35ed0101000000000000
00000000000001000000000080000000067461736b20355173a608081ef5294827e0f2440cd6390095a470617468a16ea76d73677061636bc4010501

570031663061303030302d303030302d363030302d383030302d30303030303030303030303000

02000007346362313532

570031663061303030302d303030302d363030302d383030302d30303030303030303030303000346362313532

010000010000005801a2221a074000000000070000000044377c6af1010100000000000000000000000001000000000080000000067461736b2036ef84eb
79aea93d86dceae14d50c521290095a470617468a16ea76d73677061636bc4010601
"""
"""Pending writes of seven tasks, without their checkpoint: a list, a directory and a segment."""


def golden_fields(blocks: str = GOLDEN) -> dict[bytes, bytes]:
    pairs = [bytes.fromhex(block) for block in blocks.strip().split("\n\n")]
    return dict(zip(pairs[::2], pairs[1::2], strict=True))


def test_a_thread_stored_by_the_first_release_is_read_written_and_copied(url: str, raw: Any, prefix: str) -> None:
    keys = ThreadKeys("golden", b"t")
    try:
        raw.hset(keys.hash, mapping=golden_fields())
        with RedisSaver(url, prefix="golden") as saver:  # the index is rebuilt from the hash
            found = saver.get_tuple(at("t"))
            assert found.checkpoint["channel_values"] == {f"channel {n:02}": f"{n:02}" * 60 for n in range(26)} | {"n": 1}
            assert found.metadata == metadata(run_id="run")
            assert found.pending_writes == [("task", RESUME, [True]), ("task", "log", "w" * 1200)]
            inner = saver.get_tuple(at("t", "sub:é"))
            assert id_of(inner.config) == "an id of my own"
            assert id_of(inner.parent_config) == IDS[0]
            assert inner.checkpoint["channel_versions"] == {"n": f"{7:032}"}
            assert inner.checkpoint["channel_values"] == {"n": None}
            saver.copy_thread("t", "copy")
            assert len(list(saver.list(at("copy", None)))) == 2
            made = checkpoint({"n": 2}, id=IDS[1])
            saver.put(found.config, made, metadata(), {"n": 1})
            saver.put_writes(found.config, [(RESUME, [False])], "task")
            assert saver.get_tuple(found.config).pending_writes[0] == ("task", RESUME, [False])
            saver.prune(["t"])  # the call of a subgraph, stored long ago, goes with the root checkpoint that called it
            assert [id_of(each.config) for each in saver.list(at("t", None))] == [IDS[1]]
    finally:
        for key in raw.scan_iter(match="golden:*"):
            raw.delete(key)


def test_pending_writes_in_segments_of_the_first_release_are_read_and_added_to(url: str, raw: Any) -> None:
    keys = ThreadKeys("golden", b"wide")
    try:
        raw.hset(keys.hash, mapping=golden_fields(MANY_WRITES))
        with RedisSaver(url, prefix="golden", compression="none") as saver:
            saver.put_writes(at("wide", "", IDS[0]), [("n", "late")], "task 6", "path")
            written = {name: content for name, content in golden_fields(MANY_WRITES).items() if name[:1] == b"W"}
            assert {name: raw.hget(keys.hash, name) for name in written} == written
            saver.put_writes(at("wide", "", IDS[0]), [("n", 7)], "task 7", "path")
            directory = raw.hget(keys.hash, b"W\0" + IDS[0].encode() + b"\0")
            assert directory == b"\2\0\0\x084cb152a7cac6"
            made = checkpoint({"n": None}, id=IDS[0])
            saver.put(at("wide"), made, metadata(), made["channel_versions"])
            assert saver.get_tuple(at("wide")).pending_writes == [(f"task {n}", "n", n) for n in range(8)]
            assert not list(saver.verify("wide"))
    finally:
        for key in raw.scan_iter(match="golden:*"):
            raw.delete(key)


def test_a_segment_that_begins_with_names_is_laid_out_as_in_the_first_release() -> None:
    names = b"".join(b"%06x" % n for n in range(16))
    assert thread_fields.as_list(b"\3\0\0\2" + names + b"records") == (names, b"\1\0\0\2records")
    assert thread_fields.as_list(b"\1\0\0\2records") == (b"", b"\1\0\0\2records")


def test_the_names_and_numbers_of_layout_1_are_these() -> None:
    assert ThreadKeys("p", "thread é".encode()).all == tuple(
        f"p:{{01a8}}:{name}".encode() for name in ("t:thread é", "i:thread é", "threads", "expiry", "runs", "m", "x:thread é")
    )
    assert layout_key("p") == b"p:layout"
    assert digest(b"chunk").hex() == "dc2573ff6e5265aacbc55f6ef44e88f0"
    assert records.packed_id(IDS[1].encode()).hex() == "801f0a0000000060008000000000000001"
    assert records.packed_id(b"id").hex() == "026964"
    assert records.packed_id(b"x" * 127).hex() == "7f0000007f" + "78" * 127
    assert records.packed_id(IDS[1].upper().encode())[:1] == b"\x24"  # not canonical: its text counts
    assert records.write_marker(-4, b"t").hex() == "7ffffffc0174"
    names = [digest(b"%d" % n) for n in range(60)]
    pages, rest = paginate(names)
    assert [len(page) for page in pages] + [len(rest)] == [22, 17, 9, 12]
    assert PAGE_FROM == 24


def test_a_record_is_encoded_byte_by_byte_as_in_the_first_release() -> None:
    place = RecordKey(b"p", b"t", b"C", b"ns", b"id")
    body = bodies.checkpoint_body(("msgpack", b"\x80"), {"n": Value("msgpack", b"\x01", (), 1)}, CompressionType.NONE)
    names = [digest(b"%d" % n) for n in range(2)]
    tail = b"".join(records.packed_id(part) for part in (IDS[0].encode(), b"", b"run", b""))
    for by, signed in ((Seal(Integrity([], False)), PLAIN_RECORD), (Seal(Integrity([b"k"], False)), KEYED_RECORD)):
        sealed = records.seal(by, place, References.of(names), tail, body, flags=2, depth=3, logical=258, chunked=257)
        assert sealed.hex() == signed
        stored = records.stamp(1_700_000_000_000, 9, 300, place) + sealed
        assert stored[:STAMP].hex() == "018bcfe568000000000009000000012ce40e34fd"
        header, plain_body = records.open_record(stored, place, by)
        assert (header.created_at, header.version, header.new_bytes) == (1_700_000_000_000, 9, 300)
        assert (header.parent, header.root, header.run, header.fork) == (IDS[0], None, "run", None)
        assert (header.pages, header.loose, header.depth, header.logical, header.flags) == ((), tuple(names), 3, 258, 2)
        assert pack(plain_body, CompressionType.NONE) == body


PLAIN_RECORD = (
    "01020000000002000003000000010200000001011240a4684403b160e6597a653a88f56ccea3878a334b240469d159ff840b6434801f0a"
    "0000000060008000000000000000000372756e00dfc5ef269f0f2b85fd9ef367347ee4940093a76d73677061636bc401809193a16ea76d"
    "73677061636bc40101"
)
KEYED_RECORD = (
    "01023000000002000003000000010200000001011240a4684403b160e6597a653a88f56ccea3878a334b240469d159ff840b6434801f0a"
    "0000000060008000000000000000000372756e009d1f444dc79b8779c563bbd07f09498d0093a76d73677061636bc401809193a16ea76d"
    "73677061636bc40101"
)


def test_chunks_of_every_compression_of_the_first_release_are_read() -> None:
    for stored in (
        "0061",
        "01000000c0034a00845f76616c7565732065011f20180090506167657320",
        "02000000c0789c4bce48cccb4bcd892f4bcc294d2d56c84d2d2e4e4c07329287883800612c4b01",
    ):
        plain_chunk = unpack(bytes.fromhex(stored), CHUNK_MAX, "here")
        assert plain_chunk in (b"a", b"channel_values messages " * 8)
        parts = Parts({}, {digest(plain_chunk): bytes.fromhex(stored)})
        assert parts.chunk(digest(plain_chunk), "here") == plain_chunk
