"""Why a target is not met, by the beginning of its name; printed only where it is not. Figures are those of the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .candidates import MEMORY, OURS, SERIALIZE, SET
from .targets import ALONE, MODULES, READY, REDIS, UNCOLLECTED, longest_command

Sections = Mapping[str, Any]


def why(what: str, sections: Sections) -> str:
    """What is known of a missed target."""
    reason = next((reason for name, reason in WHY.items() if what.startswith(name)), None)
    if reason is None:
        return "Not explained yet."
    try:
        if isinstance(reason, str):
            return reason
        return reason(sections, what) if reason in (_step, _server_cpu) else reason(sections)
    except KeyError as missing:
        return f"The reason needs {missing}, which this run did not measure."


def _shares(parts: Mapping[str, Mapping[str, int]]) -> str:
    total = sum(part["bytes"] for part in parts.values())
    ordered = sorted(parts.items(), key=lambda part: -part[1]["bytes"])
    return ", ".join(f"{name} {part['bytes'] / total:.0%}" for name, part in ordered if part["bytes"] >= total / 100)


def _deep_agent(sections: Sections) -> str:
    one = sections["states"]["deep agent"]
    each, keys = one["memory each"], one["key memory"]
    plain = min(each[name] for name in REDIS if name in each and name != MODULES)
    counted = min(keys[name] / one["stopped"].get(name, one["steps"]) for name in REDIS if name in keys)
    return (
        "RedisJSON keeps equal strings once for the whole server, so a file that did not change costs "
        "langgraph-checkpoint-redis a pointer: of the state only its first copy and the edited files are stored, uncompressed. "
        f"Here, too, {one['first memory'][OURS] / one['memory'][OURS]:.0%} of what is stored after {one['steps']} steps was "
        f"there after the first one, which only compression makes smaller. In all it is {_shares(one['parts'])}. Against the "
        f"savers without modules the share is {each[OURS] / plain:.3f}; by the sum of MEMORY USAGE, which counts a shared "
        f"string as often as it is used, {keys[OURS] / one['steps'] / counted:.3f}."
    )


def _window(sections: Sections) -> str:
    return (
        "Each step drops the first message and appends one, so the first and the last run of messages are stored anew, with "
        f"a record and a pending write: {_shares(sections['states']['window']['parts'])}. langgraph-checkpoint-redis stores "
        "the new message, and pointers to the strings of the old ones, which RedisJSON shares. Smaller runs "
        "(`python -m benchmarks.sweep`) would cost more chunks to read."
    )


def _floor(sections: Sections, call: str, profile: str) -> str:
    floor, script = sections["short chats"][call][SET], sections["profiles"][profile]["script ms"]
    return (
        f"The floor is one command without logic, {floor['cpu_ms'] / floor['median_ms']:.0%} of its time CPU time of the "
        f"client. The script alone, by the server's count, takes {script:.3f} ms, {script / floor['median_ms']:.0%} of what "
        "the floor takes in all"
    )


def _put(sections: Sections) -> str:
    return (
        f"{_floor(sections, 'put', 'put, chat of 10')}: it looks whether anything changed since this process wrote, and "
        "writes record, counts and indexes. To that come cutting, checksums, the record, and redis-py with the keys and "
        "arguments of a script; the profile below has the shares."
    )


def _put_writes(sections: Sections) -> str:
    return f"{_floor(sections, 'put_writes', 'put_writes')}: it checks what is there. That comes on top; see the profile below."


def _step(sections: Sections, what: str) -> str:
    """A step of a chat: the time beside that of the best other saver, and whose it is."""
    one = sections["steps"][what.split("chat of ")[1].split(",")[0]]
    steps, served = one["step ms"], one["server ms"]
    best = min((name for name in REDIS if name in steps), key=lambda name: steps[name])

    def told(name: str) -> str:
        calls = [one[call][name] for call in ("put", "put_writes")]
        cpu = sum(each["cpu_ms"] for each in calls)
        return f"{steps[name]:.3f} ms (CPU of this process {cpu:.3f} ms, of the server {served[name]:.3f} ms)"

    return (
        f"A step takes {told(OURS)} here, {told(best)} with {best}. That saver serializes and sends the whole state each time, "
        "by commands without logic, which a short chat makes cheap. This package cuts, compares, hashes and compresses what is "
        "new, and the server looks whether anything changed since this process wrote. The profile below has the shares."
    )


def _server_cpu(sections: Sections, what: str) -> str:
    one, us = sections["steps"][what.split("chat of ")[1].split(",")[0]], sections["steps"]["scripts us"]
    served = one["server ms"]
    best = min((name for name in REDIS if name in served), key=lambda name: served[name])
    return (
        f"The main thread takes {1000 * served[OURS]:.0f} µs for a step, with {best} {1000 * served[best]:.0f} µs. Many in a "
        f"row, with a chat of 10, the scripts take {us['put']:.0f} and {us['put_writes']:.0f} µs; the rest is reading the "
        "calls, sending the replies, and a cache of the processor that others used in between."
    )


def _script(sections: Sections) -> str:
    us = sections["steps"]["scripts us"]
    return (
        f"A put takes {us['put']:.0f} µs, a put_writes {us['put_writes']:.0f} µs. A script that does nothing takes 4 µs on a "
        "machine that nobody else uses, and each command about 1. One reads counts, settings, statement and what is there, one "
        "each the number of fields, index and expiry; the last activity, the fields, the index and the run are written, and "
        "each stamp has a SHA-1 check."
    )


def _list_threads(sections: Sections) -> str:
    each = sections["threads"]["100000"]["ms"]
    return (
        f"It takes {each['list_threads(limit=50)']:.1f} ms: the newest of all threads can stand in any of 1,024 buckets, each "
        "a key in a Cluster slot of its own, so all are asked, in one packet."
    )


def _get_tuple(sections: Sections) -> str:
    reads = sections["long chat"]["reads"]["get_tuple latest"]
    return (
        "Reviving the messages alone (*floor: serialize*) takes "
        f"{reads[SERIALIZE]['median_ms'] / reads[OURS]['median_ms']:.0%} of the time here. To that come a round trip, the "
        "record and joining the chunks, which are remembered; *this, cache_bytes=0* receives, inflates and verifies them "
        "each time."
    )


def _blocked(sections: Sections) -> str:
    ms, what, state = longest_command(sections["long history"])
    return (
        f"The longest is {what}, with {state}: {ms:.1f} ms. A removal reads the names of all fields of the thread with one "
        "command. What goes is taken out by one script, or what stays made the thread anew, whichever is less; where both are "
        "much, what stays was copied by short scripts before."
    )


def _threads(sections: Sections) -> str:
    one, profile = sections["concurrent"], sections["profiles"]["a call of 64 threads at once"]["packages"]
    rates, server = one["calls a second"], one["server CPU ms"]
    best = max((name for name in REDIS if name in rates), key=lambda name: rates[name])
    each = {name: f"{one['a call'][name]['cpu_ms']:.3f} ms and {server[name]:.3f} ms" for name in (OURS, best)}
    client = profile.get("redis", 0) + profile.get("asyncio", 0)
    return (
        "One Python thread and one of the server do all the work, so what counts is the CPU time that a call takes of each: "
        f"{each[OURS]} here, {each[best]} with {best}. Calls of many threads leave in shared packets; of the profiled time "
        f"(below) redis-py and asyncio take {client:.0f} %, the Python code of this package "
        f"{profile['langgraph_redis_state']:.0f} % and functions in C {profile['functions in C']:.0f} %. What cutting and "
        "comparing save grows with the state, and here it has 20 messages."
    )


def _longest_stall(sections: Sections, name: str) -> tuple[float, str]:
    return max((each[name], call) for call, each in sections["stalls"].items() if name in each)


def _stall(sections: Sections) -> str:
    ms, call = _longest_stall(sections, OURS)
    each = sections["stalls"][call]
    beside = "; ".join(f"{name} {each[name]:.1f} ms" for name in (MEMORY, ALONE, UNCOLLECTED, READY) if name in each)
    return (
        f"The longest is {call}: {ms:.1f} ms, beside it {beside}. A put serializes before its first await, so that the state "
        "may change as soon as `aput` waits. Large values are decoded and cut in a worker thread, but one call into C, the "
        "serializer's above all, keeps the GIL until it is done, and what it "
        "makes sets off garbage collections, which stop every thread."
    )


def _own_stall(sections: Sections) -> str:
    ms, call = _longest_stall(sections, READY)
    return (
        f"The longest is {call}: {ms:.1f} ms. Work on more than 256 KB runs in a worker thread. While it is Python, the loop "
        "waits for the interpreter's lock up to 5 ms (`sys.getswitchinterval`), behind `select` and behind each call of a "
        "socket. A call into C keeps the lock until it is done, so elements of lists and dicts are found in portions."
    )


WHY: dict[str, str | Callable[..., str]] = {
    "Redis memory, deep-agent": _deep_agent,
    "Redis memory, sliding window": _window,
    "Redis memory, a thread of": (
        "Of a short thread much is what each has once: two keys, entries in the bucket's indexes, counts, and a hash of "
        "fields longer than 64 bytes, which the server keeps as a table and whose contents its allocator rounds up. A message "
        "stands there twice, in its chunk and in the pending write that brought it. What is shared between checkpoints pays "
        "from some ten messages on."
    ),
    "bytes replicated for": (
        "A server replicates commands with their names: those of the thread's keys, counts and last activity, with each "
        "write. Up to four small writes stand in one list, which is replicated whole with each of them."
    ),
    "put, chat of 500, against InMemorySaver": (
        "What is left where no message is serialized again: packing 500 messages to see that they did not change, joining them "
        "to runs, the record, redis-py and a round trip; the profile below has the share of each."
    ),
    "put + put_writes of one step": _step,
    "server CPU of one step": _server_cpu,
    "script of": _script,
    "list_threads": _list_threads,
    "put, chat of 10": _put,
    "put_writes, chat of 10": _put_writes,
    "get_tuple latest, chat of 500, against InMemorySaver": _get_tuple,
    "server blocked": _blocked,
    "64 async threads": _threads,
    "event loop stall": _stall,
    "of that, without the serializer": _own_stall,
    "import time": (
        "It is files that are opened, of lz4, msgspec and this package, and so takes longer on a busy machine. redis is not "
        "among them; it is imported when first used."
    ),
}
