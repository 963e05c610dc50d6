"""doctor: what of the server and its settings endangers threads, and what to do about it.

Reads `INFO`, `CONFIG GET` and `ACL WHOAMI` where the user may, through the client library, and tries rights by a verb of the
saver. What may not be asked is told as such and is no finding. Nothing is changed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .. import CheckpointerError, LayoutError, RedisSaver

Level = Literal["fine", "notice", "problem", "unknown"]

SKEW_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    level: Level
    found: str
    advice: str = ""


def examine(looker: RedisSaver, saver: RedisSaver | None = None) -> list[Check]:
    """All checks, in the order of what fails first.

    Args:
        looker: a `read_only` saver.
        saver: one that may write; it does not. Rights to write are tried with it, and not without it.

    Raises:
        ServerUnavailableError, ServerRefusedError: the server does not answer a PING.
    """
    looker.ping()
    info = _info(looker)
    config = _config(looker)
    layout = _layout(looker)
    checks = [_version(info), layout, *_rights(looker, saver, layout), _eviction(info, config), _memory(info)]
    return [*checks, _persistence(info, config), _replicas(info), _clock(looker), _msgpack()]


def _ask(saver: RedisSaver, *command: str) -> Any:
    """A answer of the server; None if it may not be asked."""
    try:
        return saver.client.execute_command(*command)
    except Exception:  # noqa: BLE001 - rights, managed servers, Clusters: told as unknown
        return None


def _info(saver: RedisSaver) -> Mapping[str, Any]:
    found = _ask(saver, "INFO")
    if isinstance(found, Mapping) and found and all(isinstance(each, Mapping) for each in found.values()):
        return next(iter(found.values()))  # of a Cluster: by node
    return found if isinstance(found, Mapping) else {}


def _config(saver: RedisSaver) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for name in ("maxmemory-policy", "appendonly", "appendfsync", "save"):
        answer = _ask(saver, "CONFIG", "GET", name)
        pairs = (
            answer.items()
            if isinstance(answer, Mapping)
            else zip(answer[::2], answer[1::2], strict=True)
            if isinstance(answer, list)
            else ()
        )
        found.update((_text(key), _text(value)) for key, value in pairs)
    return found


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _version(info: Mapping[str, Any]) -> Check:
    version = str(info.get("valkey_version") or info.get("redis_version") or "")
    if not version:
        return Check("server", "unknown", "it may not be asked (INFO)")
    name = "Valkey" if "valkey_version" in info else "Redis"
    mode = str(info.get("redis_mode") or info.get("server_mode") or "")  # Valkey 8 and newer have the second
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < (6, 2):
        return Check("server", "problem", f"{name} {version}, {mode}", "update it: 6.2 is the oldest that works")
    return Check("server", "fine", f"{name} {version}, {mode}")


def _layout(saver: RedisSaver) -> Check:
    try:
        saver.tags("of no thread")
    except LayoutError as error:
        return Check("layout", "problem", str(error), "use the version of langgraph-redis-state that wrote it, or a newer one")
    except CheckpointerError as error:
        return Check("layout", "unknown", str(error))
    return Check("layout", "fine", "this version may read and write it")


def _rights(looker: RedisSaver, saver: RedisSaver | None, layout: Check) -> list[Check]:
    who = _text(_ask(looker, "ACL", "WHOAMI") or "(it may not ask for its name)")
    can_look = layout.level in ("fine", "problem")  # its number was read, by a script
    if saver is None:
        return [Check("rights to look", "fine", f"user {who} may")] if can_look else []
    try:
        missing = saver.rights()
    except CheckpointerError as error:
        if can_look:
            advice = "grant +evalsha +eval and the rest, if it shall do that"
            may_not = Check("rights to change", "notice", f"user {who} may run no script that writes", advice)
            return [Check("rights to look", "fine", f"user {who} may"), may_not]
        return [
            Check("rights", "problem", f"user {who}: {error}", "grant +evalsha and +eval, or +evalsha_ro and +eval_ro to look")
        ]
    checks = []
    for group, lacking in missing.items():
        if not lacking:
            checks.append(Check(f"rights to {group}", "fine", f"user {who} has them all"))
            continue
        grants = " ".join(f"+{name.lower()}" for name in lacking)
        level: Level = "problem" if group == "look" else "notice"
        checks.append(
            Check(f"rights to {group}", level, f"user {who} lacks {', '.join(lacking)}", f"grant {grants}, if it shall do that")
        )
    return checks


def _eviction(info: Mapping[str, Any], config: Mapping[str, str]) -> Check:
    policy = config.get("maxmemory-policy") or str(info.get("maxmemory_policy", ""))
    limit = int(info.get("maxmemory", 0) or 0)
    if not policy:
        return Check("eviction", "unknown", "it may not be asked (CONFIG GET, INFO)")
    if policy == "noeviction":
        return Check("eviction", "fine", "noeviction: a full server refuses writes, and loses nothing")
    advice = "CONFIG SET maxmemory-policy noeviction, and in the configuration file"
    if not limit:
        return Check("eviction", "notice", f"{policy}, without maxmemory: it does nothing yet", advice)
    return Check("eviction", "problem", f"{policy}: a full server deletes threads, or halves of them", advice)


def _memory(info: Mapping[str, Any]) -> Check:
    used, limit = int(info.get("used_memory", 0) or 0), int(info.get("maxmemory", 0) or 0)
    if not used:
        return Check("memory", "unknown", "it may not be asked (INFO)")
    if not limit:
        return Check("memory", "fine", f"{used / 1e6:.0f} MB used, no maxmemory")
    share = used / limit
    found = f"{used / 1e6:.0f} of {limit / 1e6:.0f} MB used ({share:.0%})"
    if share > 0.9:
        return Check(
            "memory", "problem", found, "raise maxmemory, or remove: lgrs rm --idle 30d, lgrs prune --all --keep-last 50"
        )
    return Check("memory", "fine", found)


def _persistence(info: Mapping[str, Any], config: Mapping[str, str]) -> Check:
    if not info and not config:
        return Check("persistence", "unknown", "it may not be asked (INFO, CONFIG GET)")
    failed = [name for name in ("rdb_last_bgsave_status", "aof_last_write_status") if str(info.get(name, "ok")) != "ok"]
    if failed:
        return Check(
            "persistence", "problem", f"{', '.join(failed)}: err", "the disk is full or broken; look at the server's log"
        )
    if config.get("appendonly") == "yes" or str(info.get("aof_enabled", "0")) == "1":
        when = config.get("appendfsync", "everysec")
        return Check("persistence", "fine", f"append-only file, fsync {when}")
    if config.get("save"):
        return Check(
            "persistence", "notice", f"snapshots only ({config['save']})", "appendonly yes loses a second at most, not minutes"
        )
    if "save" not in config:
        return Check("persistence", "unknown", "no append-only file; snapshots may not be asked for (CONFIG GET)")
    return Check(
        "persistence",
        "problem",
        "none: a restart loses every thread",
        "CONFIG SET appendonly yes, and in the configuration file",
    )


def _replicas(info: Mapping[str, Any]) -> Check:
    role = str(info.get("role", ""))
    if not role:
        return Check("replicas", "unknown", "it may not be asked (INFO)")
    if role in ("slave", "replica"):
        link = str(info.get("master_link_status", "?"))
        level: Level = "fine" if link == "up" else "problem"
        return Check(
            "replicas", level, f"this is a replica, its link is {link}", "" if link == "up" else "what it shows is old"
        )
    count = int(info.get("connected_slaves", 0) or 0)
    if not count:
        return Check("replicas", "notice", "none: if this server is lost, so is what its disk does not have", "add a replica")
    return Check("replicas", "fine", f"{count} connected")


def _clock(saver: RedisSaver) -> Check:
    before = time.time()
    answer = _ask(saver, "TIME")
    after = time.time()
    if not isinstance(answer, list | tuple) or len(answer) != 2:
        return Check("clock", "unknown", "it may not be asked (TIME)")
    theirs = int(answer[0]) + int(answer[1]) / 1e6
    skew = max(before - theirs, theirs - after, 0.0)
    if skew > SKEW_SECONDS:
        return Check(
            "clock",
            "notice",
            f"the server and this machine differ by {skew:.0f} s",
            "nothing depends on it but ids: run NTP on both",
        )
    return Check("clock", "fine", f"the server and this machine differ by less than {max(skew, 0.1):.1f} s")


def _msgpack() -> Check:
    if os.environ.get("LANGGRAPH_STRICT_MSGPACK", "").lower() in ("1", "true", "yes"):
        return Check("strict msgpack", "fine", "on in this environment")
    return Check(
        "strict msgpack",
        "notice",
        "off in this environment: LangGraph imports and calls what stored bytes name (lgrs never does)",
        "export LANGGRAPH_STRICT_MSGPACK=true where graphs run",
    )
