"""`LGRS_*` variables: what each sets, and what is said of one that is wrong or unknown."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from langgraph_redis_state import Fsync, InvalidConfigError, RedisSaver, Replicas
from langgraph_redis_state.environment import VARIABLES, encrypted, options, value_of

GOOD: dict[str, tuple[str, Any]] = {
    "LGRS_URL": ("redis://host:1/2", "redis://host:1/2"),
    "LGRS_PREFIX": ("shop", "shop"),
    "LGRS_TTL": ("30d", timedelta(days=30)),
    "LGRS_REFRESH_TTL_ON_READ": ("false", False),
    "LGRS_MAX_VERSIONS": ("200", 200),
    "LGRS_MAX_AGE": ("90", timedelta(seconds=90)),
    "LGRS_MAX_THREAD_BYTES": ("1000000", 1_000_000),
    "LGRS_TOMBSTONE": ("0", timedelta(0)),
    "LGRS_CONFLICT": ("raise", "raise"),
    "LGRS_DURABILITY": ("replicas:2", Replicas(2)),
    "LGRS_INDEX_METADATA": ("user, tenant", ["user", "tenant"]),
    "LGRS_COMPRESSION": ("zlib", "zlib"),
    "LGRS_CACHE_BYTES": ("0", 0),
    "LGRS_ACCEPT_UNKEYED": ("On", True),
    "LGRS_DECRYPT_ONLY": ("no", False),
    "LGRS_FRESHNESS": ("true", True),
    "LGRS_ALLOWED_TYPES": ("shop.orders:Invoice,shop:A.B", [("shop.orders", "Invoice"), ("shop", "A.B")]),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_variable_is_read_as_its_option_takes_it(name: str) -> None:
    given, meant = GOOD[name]
    assert value_of(name, {name: given}) == meant
    option, _ = VARIABLES[name]
    assert options({name: given}) == ({option: meant} if option else {})


def test_a_saver_takes_all_options_at_once_and_every_variable_is_tried(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    files = {name: str(key) for name in VARIABLES if name.endswith("_FILE")}
    assert GOOD.keys() | files.keys() == VARIABLES.keys()
    given = {**{name: text for name, (text, _) in GOOD.items()}, **files}
    RedisSaver(**options(given)).close()
    assert options(given)["encryption_key"] == [b"k" * 32]
    assert isinstance(encrypted(JsonPlusSerializer(), given), EncryptedSerializer)


def test_a_variable_that_is_set_to_nothing_is_not_set() -> None:
    assert options(dict.fromkeys(VARIABLES, " ")) == {}
    serde = JsonPlusSerializer()
    assert encrypted(serde, {"LGRS_SERDE_KEY_FILE": ""}) is serde


@pytest.mark.parametrize(
    ("text", "level"), [("fsync", Fsync()), ("replicas:all", Replicas("all")), ("replicas:1", Replicas(1))]
)
def test_each_level_of_durability_has_a_name(text: str, level: Any) -> None:
    assert value_of("LGRS_DURABILITY", {"LGRS_DURABILITY": text}) == level


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("LGRS_TTL", "a month"),
        ("LGRS_TTL", "-1"),
        ("LGRS_MAX_AGE", "99999999999999999w"),
        ("LGRS_MAX_VERSIONS", "1.5"),
        ("LGRS_REFRESH_TTL_ON_READ", "maybe"),
        ("LGRS_DURABILITY", "replicas:0"),
        ("LGRS_DURABILITY", "disk"),
        ("LGRS_ALLOWED_TYPES", "Invoice"),
        ("LGRS_INTEGRITY_KEY_FILE", "/nowhere/key"),
    ],
)
def test_a_wrong_value_is_told_with_its_variable(name: str, wrong: str) -> None:
    with pytest.raises(InvalidConfigError, match=name):
        value_of(name, {name: wrong})


def test_an_unknown_variable_is_told_with_the_one_that_is_near_or_with_all() -> None:
    with pytest.raises(InvalidConfigError, match=r"LGRS_PREFIXES means nothing here; did you mean LGRS_PREFIX\?"):
        options({"LGRS_PREFIXES": "x"})
    with pytest.raises(InvalidConfigError, match=r"LGRS_QQ means nothing here; known are LGRS_URL, LGRS_PREFIX, "):
        options({"LGRS_QQ": "x"})
    assert options({"LANGGRAPH_OTHER": "x"}) == {}


@pytest.mark.parametrize(
    ("name", "content"),
    [("LGRS_SERDE_KEY_FILE", b"short"), ("LGRS_NAME_KEY_FILE", b"hex:" + b"00" * 32 + b"\nhex:" + b"11" * 32)],
)
def test_a_key_of_the_wrong_size_or_number_is_told_with_its_variable(tmp_path: Path, name: str, content: bytes) -> None:
    key = tmp_path / "key"
    key.write_bytes(content)
    with pytest.raises(InvalidConfigError, match=name):  # one of the two reads it
        _ = options({name: str(key)}), encrypted(JsonPlusSerializer(), {name: str(key)})


def test_the_page_of_the_agent_server_has_a_row_for_each_variable_and_its_examples_are_taken(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "agent-server.md").read_text("utf-8")
    rows = re.findall(r"^\| `(LGRS_\w+)` \| `([^`]+)` \|", page, re.MULTILINE)
    assert [name for name, _ in rows] == list(VARIABLES)
    taken = {name: value for name, value in rows if not name.endswith("_FILE")}
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    RedisSaver(**options({**taken, "LGRS_URL": "redis://host", "LGRS_ENCRYPTION_KEY_FILE": str(key)})).close()
