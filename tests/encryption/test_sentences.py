"""What is said when a key is wrong, missing, short, gone or cannot be used: what, where, and what to do."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from audit import grow
from shapes import at

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.environment import options
from langgraph_redis_state.errors import CheckpointCorruptError, CheckpointerError, EncryptionKeyError, LayoutError
from langgraph_redis_state.storage.seals import key_id

OLD, NEW, NAMES = bytes(range(32)), bytes(range(1, 33)), bytes(range(64, 96))
FIRST, SECOND = key_id(OLD), key_id(NEW)
ALIKE = next(key for n in range(5000) if key_id(key := n.to_bytes(32, "big")) == FIRST)
"""Another key with the id of `OLD`."""

READS = {
    "get_tuple": lambda saver: saver.get_tuple(at("t")),
    "list": lambda saver: list(saver.list(at("t"))),
    "history": lambda saver: list(saver.history("t")),
    "tags": lambda saver: saver.tags("t"),
    "put_on_it": lambda saver: saver.prune(["t"], keep_last=1),
    "rekey": lambda saver: saver.rekey(["t"]),
    "copy_thread": lambda saver: saver.copy_thread("t", "u"),
}

OTHERS: dict[str, tuple[dict[str, Any], type[CheckpointerError], str]] = {
    "none": (
        {},
        EncryptionKeyError,
        rf"encrypted with a key \(id {FIRST}\), and this saver has no encryption_key; pass the key that it was written with",
    ),
    "only one that signs": (
        {"integrity_key": OLD},
        EncryptionKeyError,
        rf"\(id {FIRST}\), and this saver has no encryption_key; pass",
    ),
    "another": (
        {"encryption_key": NEW},
        EncryptionKeyError,
        rf"encrypted with a key \(id {FIRST}\) that this saver was not given \(it has {SECOND}\); add it behind the first in "
        r"encryption_key, and keep it there until `rekey`",
    ),
    "another from a provider": (
        {"encryption_key": lambda thread: [NEW, NAMES]},
        EncryptionKeyError,
        rf"\(id {FIRST}\) that this saver was not given \(it has {SECOND} and {key_id(NAMES)}\); "
        "add it behind the first in what the key provider returns",
    ),
    "another with the same id": ({"encryption_key": ALIKE}, CheckpointCorruptError, "damaged or moved|the key is another one"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_missing_or_wrong_key_is_told_with_its_id_the_thread_and_the_option(url: str, prefix: str, other: str) -> None:
    with RedisSaver(url, prefix=prefix, encryption_key=OLD) as saver:
        grow(saver, "t", 2, 1)
        saver.tag("t", "good")
    given, kind, sentence = OTHERS[other]
    with RedisSaver(url, prefix=prefix, **given) as saver:
        for verb, read in READS.items():
            if verb == "rekey" and "same id" in other:  # it goes by the ids alone where there is but one key
                continue
            with pytest.raises(kind, match=sentence) as caught:
                read(saver)
            assert type(caught.value) is kind
            assert "thread 't'" in str(caught.value), verb


def test_a_key_that_was_taken_away_before_rekey_was_done_is_asked_for_by_the_chunk_that_needs_it(url: str, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix, encryption_key=OLD) as saver:
        config = grow(saver, "t", 3, 1)[-1]
    with RedisSaver(url, prefix=prefix, encryption_key=[NEW, OLD]) as saver:
        found = saver.get_tuple(config)
        made = {**found.checkpoint, "id": "2" + found.checkpoint["id"][1:]}
        saver.put(config, made, found.metadata, {})  # a record under the new key, its chunks under the old one
    chunk = rf"thread 't'.*the chunk [0-9a-f]{{32}}: encrypted with a key \(id {FIRST}\)"
    with RedisSaver(url, prefix=prefix, encryption_key=NEW) as saver:
        with pytest.raises(EncryptionKeyError, match=rf"{chunk} that this saver was not given \(it has {SECOND}\)"):
            saver.get_tuple(at("t"))
    with RedisSaver(url, prefix=prefix, encryption_key=OLD, decrypt_only=True) as saver:
        grow(saver, "u", 1, 1)
        with pytest.raises(EncryptionKeyError, match=rf"\(id {SECOND}\) that this saver was not given \(it has {FIRST}\)"):
            saver.get_tuple(at("t"))


def test_a_plain_record_with_chunks_under_a_key_asks_for_the_key(url: str, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix, encryption_key=OLD) as saver:
        config = grow(saver, "t", 3, 1)[-1]
    with RedisSaver(url, prefix=prefix, encryption_key=OLD, decrypt_only=True) as saver:
        found = saver.get_tuple(config)
        saver.put(config, {**found.checkpoint, "id": "2" + found.checkpoint["id"][1:]}, found.metadata, {})
    with RedisSaver(url, prefix=prefix) as saver:
        with pytest.raises(
            EncryptionKeyError, match=rf"thread 't'.*the chunk [0-9a-f]{{32}}: .*\(id {FIRST}\), and this saver has no"
        ):
            saver.get_tuple(at("t"))


@pytest.mark.parametrize(
    ("option", "given", "sentence"),
    [
        (
            "encryption_key",
            b"short",
            "encryption_key: a key has 5 bytes, and takes at least 32; make one with secrets.token_bytes",
        ),
        ("encryption_key", [OLD, b"short"], "encryption_key: a key has 5 bytes, and takes at least 32"),
        ("encryption_key", "x" * 32, "encryption_key: a key is bytes, or several of them are a list, not str"),
        ("encryption_key", [], "encryption_key: a key is bytes, or several of them are a list"),
        ("encryption_key", [OLD, None], "encryption_key: a key is bytes"),
        ("encryption_key", OLD + b"\xff\n", None),
        ("encryption_key", OLD[:31] + b"\n", None),
        (
            "encryption_key",
            OLD + b"\n",
            "encryption_key: a key of 33 bytes ends with a newline; was it read from a file.*Strip",
        ),
        ("encryption_key", OLD + b"\r\n", "encryption_key: a key of 34 bytes ends with a newline"),
        ("encryption_key", b"eTCPaquCqd0sEmbDvRqGn9Ui0JdW4i5D\n", "encryption_key: a key of 33 bytes ends with a newline"),
        ("encryption_key", b"eTCPaquCqd0sEmbDvRqGn9Ui0JdW4i5DBHZ3DrLZ8Nk=\n", "encryption_key: a key of 45 bytes ends with"),
        ("name_key", b"short", "name_key: a key has 5 bytes, and takes at least 32"),
        ("name_key", OLD + b"\n", "name_key: a key of 33 bytes ends with a newline"),
        ("name_key", [OLD], "name_key is one key for ever, as bytes, not list"),
    ],
)
def test_a_key_that_cannot_be_one_is_refused_at_construction(option: str, given: Any, sentence: str | None) -> None:
    if sentence is None:
        RedisSaver(**{option: given}).close()
        return
    with pytest.raises(ValueError, match=sentence) as caught:
        RedisSaver(**{option: given})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (b"eTCPaquCqd0sEmbDvRqGn9Ui0JdW4i5D\n", b"eTCPaquCqd0sEmbDvRqGn9Ui0JdW4i5D"),
        (b"eTCPaquCqd0sEmbDvRqGn9Ui0JdW4i5D\r\n", b"eTCPaquCqd0sEmbDvRqGn9Ui0JdW4i5D"),
        (bytes(range(200, 232)) + b"\n", bytes(range(200, 232))),
        (bytes(range(200, 231)) + b"\n", bytes(range(200, 231)) + b"\n"),  # 32 random bytes, the last of which is 10
        (b"hex:" + OLD.hex().encode() + b"\n", OLD),
    ],
)
@pytest.mark.parametrize("variable", ["LGRS_ENCRYPTION_KEY_FILE", "LGRS_NAME_KEY_FILE", "LGRS_INTEGRITY_KEY_FILE"])
def test_the_line_end_of_a_key_file_does_not_belong_to_the_key(
    tmp_path: Path, variable: str, content: bytes, key: bytes
) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    (found,) = options({variable: str(file)}).values()
    assert found in (key, [key])
    RedisSaver(**options({variable: str(file)})).close()


def test_a_name_key_that_is_new_missing_or_another_is_told_before_a_thread_seems_to_be_empty(url: str, prefix: str) -> None:
    hidden, plain = f"{prefix}-hidden", f"{prefix}-plain"
    for place, given in ((hidden, {"name_key": NAMES}), (plain, {})):
        with RedisSaver(url, prefix=place, **given) as saver:
            grow(saver, "t", 1, 1)
    for place, given, sentence in (
        (hidden, {}, "begun with a name_key.*Pass that key, or use a prefix of its own; `migrate` copies"),
        (hidden, {"name_key": OLD}, "begun with another name_key.*Pass that key, or use a prefix of its own"),
        (plain, {"name_key": NAMES}, "begun without a name_key.*Leave name_key out, or use a prefix of its own; `migrate`"),
    ):
        with RedisSaver(url, prefix=place, **given) as saver:
            verbs = {**READS, "put": lambda saver: grow(saver, "t", 1, 1), "threads": lambda saver: list(saver.list_threads())}
            for verb in verbs.values():
                with pytest.raises(LayoutError, match=rf"prefix '{re.escape(place)}': the layout says that it was {sentence}"):
                    verb(saver)


WITHOUT = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "cryptography":
            raise ModuleNotFoundError("No module named 'cryptography'", name="cryptography")

sys.meta_path.insert(0, Absent())
from langgraph_redis_state import RedisSaver

url, prefix = sys.argv[1:]
for given in ({{"encryption_key": {OLD!r}}}, {{"encryption_key": lambda thread: None}}, {{"name_key": {OLD!r}}}):
    try:
        RedisSaver(url, **given)
    except ValueError as error:
        print(type(error).__name__, error)
with RedisSaver(url, prefix=prefix) as saver:
    try:
        saver.get_tuple({{"configurable": {{"thread_id": "t"}}}})
    except ValueError as error:
        print("wrong", error)
    except Exception as error:
        print(type(error).__name__, error)
    print(saver.get_tuple({{"configurable": {{"thread_id": "none"}}}}))
"""


def test_without_cryptography_the_extra_is_named_and_all_else_works(url: str, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix, encryption_key=OLD) as saver:
        grow(saver, "t", 1, 1)
    found = subprocess.run([sys.executable, "-c", WITHOUT, url, prefix], capture_output=True, text=True, timeout=60, check=True)
    assert [line for line in found.stdout.splitlines() if line] == [
        "InvalidConfigError encryption_key needs: pip install 'langgraph-redis-state[encryption]'",
        "InvalidConfigError encryption_key needs: pip install 'langgraph-redis-state[encryption]'",
        "InvalidConfigError name_key needs: pip install 'langgraph-redis-state[encryption]'",
        next(line for line in found.stdout.splitlines() if line.startswith("EncryptionKeyError thread 't'")),
        "None",
    ]
    assert "pass the key that it was written with" in found.stdout
