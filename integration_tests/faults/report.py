"""Runs the fault tests in their long form and writes `docs/reliability.md` from the figures they tell.

    python -m integration_tests.faults.report              run, and write if every test passed
    python -m integration_tests.faults.report FIGURES...   write from figures that were kept

Figures of one name become one row: counts are added, seconds and megabytes are the largest, texts are listed. Which table a
row stands in is decided by how its name begins; a family unknown here gets a table at the end.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DOCUMENT = HERE.parents[1] / "docs" / "reliability.md"


@dataclass(frozen=True)
class Family:
    begins: str
    title: str
    claim: str
    no_claim: str


FAMILIES = [
    Family(
        "kill -9",
        "A server that is killed",
        "With `appendonly yes` and `appendfsync always` a checkpoint or write that was acknowledged survives `kill -9` of"
        " the server, whole and once. Sync and async writers work on over each kill; after each restart everything they "
        "were told is stored is read and compared.",
        "The kill takes the process; the machine, its page cache and disk stay. Power loss is Redis' and the disk's "
        "promise. With `appendfsync everysec` up to about a second may go with the machine; without persistence, "
        "everything.",
    ),
    Family(
        "failover",
        "Fail-over",
        "Eight writers put without a pause while a primary is lost, or told to step down, behind Sentinel (one primary, two "
        "replicas) and in a Cluster (three of each). With `durability=Replicas(all)` nothing that was acknowledged is lost "
        "when the primary alone fails. *Unsure*: calls that raised, so that nobody was told. *Lost back to*: how long before "
        "the fault the oldest lost one was acknowledged. *First write after*: from the fault on.",
        "With `durability=None`, and with fewer replicas than all, a fail-over may lose what was acknowledged, as the rows "
        "show: Redis replicates asynchronously. A primary that is told to step down goes on for a while, as one would that "
        "is cut off; `Replicas(all)` lost nothing there either, but only the number of all replicas refuses it in principle. "
        "In the Cluster a primary with one replica has none after the fault: with a level it is written to again when the "
        "lost node is back.",
    ),
    Family(
        "resharding",
        "Slots that move",
        "Slots of busy threads move between four primaries of a Cluster, one of them new, under load, some held half "
        "moved for two seconds: no error reaches the caller, nothing is lost. A call waits while its slot moves, for up "
        "to a minute.",
        "A slot that takes longer than a minute to move is `ServerUnavailableError`; nothing was done then, and repeating"
        " is safe.",
    ),
    Family(
        "stream",
        "Connections that break at every byte",
        "A proxy lets N bytes of a request or a reply of `put`, `put_writes` and `get_tuple` pass and harms the next, for "
        "every N: it closes the connection (*cut*), ends the stream (*half-close*), drops the rest and closes nothing "
        "(*swallow*), holds the rest a moment (*delay*), or holds it until the client has given up, and sent it again if it "
        "does (*late*). The answer is right or a `ServerUnavailableError`; what is stored is what was put, once "
        "(checkpoints, writes and the version counter are counted); the same saver works on. *Of these done*: the error "
        "came although the write arrived, as its message says it may; putting it again changed nothing.",
        "One connection is harmed once. Where every try of redis-py fails the caller gets the error, as in *sent once*.",
    ),
    Family(
        "clients killed",
        "Clients that are killed",
        "A client is killed with SIGKILL at a random point of puts, writes, copies, prunes, uploads through staging, and "
        "a graph with a subgraph, interrupt and DeltaChannel. Every listed checkpoint loads and verifies, what was "
        "acknowledged is there, a batch of writes is whole or absent, and the graphs go on to their end.",
        "What a killed client had staged (large uploads, copies) stays until it expires after 10 minutes.",
    ),
    Family(
        "between",
        "Disturbances between two operations",
        "Each of the pairs of `put`, `put_writes`, `get_tuple`, `list`, `list(None)`, `delete_thread`, `delete_for_runs`,"
        " `copy_thread`, `prune`, `get_delta_channel_history` (and a list of the copy) with a disturbance between them: "
        "the second gives and leaves what it does without the disturbance; after `FLUSHALL`, what it does on an empty "
        "server. Typed errors are those that come without it too (a copy onto an existing thread, a put into a deleted "
        "one, a copy of none).",
        "After `FLUSHALL` the threads are gone, and the saver says `None`, as for any thread that never was. What a saver"
        " wrote before it noticed has no layout number beside it until the next write; each record carries its own.",
    ),
    Family(
        "eviction",
        "Keys that are evicted",
        "An evicted index is rebuilt from the hash by the next call that looks into it, whichever it is; a copy reads the "
        "hash alone. An evicted hash is `CheckpointLostError` until the thread is deleted or begun anew. Under a server that "
        "evicts for real no answer is wrong.",
        "A thread both of whose keys were evicted is gone without a trace: set `maxmemory-policy noeviction`.",
    ),
    Family(
        "writers",
        "Many writers at once",
        "Histories are compared with a model: all there, none twice, parents right, version numbers without a gap, and "
        "the newest is the greatest id.",
        'Two writers of one thread fork it, as everywhere in LangGraph, unless `conflict="raise"`.',
    ),
    Family(
        "graphs",
        "Few connections",
        'Graph runs wait for one of a few connections instead of failing with "too many connections".',
        "redis-py's async Cluster client has no pool that waits: there the saver opens as many connections as it needs.",
    ),
    Family(
        "memory",
        "A slow network",
        "Memory that Python holds after and during each 500 steps of 50 concurrent graphs, each byte delayed by 50 ms "
        "each way.",
        "It is what the process allocates, the graphs included, not its resident size.",
    ),
    Family(
        "cancellation",
        "Calls that are cancelled",
        "A call that is cancelled at any of its awaits leaves the thread as before or as after; two connections serve "
        "four calls at once thereafter, and repeating the call completes it.",
        "Which of the two it is cannot be known without looking: the request may be on its way.",
    ),
]

HEAD = """# Reliability

What was done to servers, networks and clients, and what came of it. Written by `make reliability`, which runs
`integration_tests/faults/` in its long form; `make integration` runs the same tests with fewer repetitions. A test fails
at the first lost checkpoint, wrong answer or untyped error, so the zeros below are what the tests hold, and the other
numbers say how often they had the chance to fail. Only in fail-overs with less than all replicas is what was lost counted,
and no bound to it.

"""


def merged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    by_name: dict[str, dict[str, Any]] = {}
    for row in rows:
        known = by_name.setdefault(row["name"], {})
        for key, value in row.items():
            there = known.get(key)
            if there is None or key == "name":
                known[key] = value
            elif isinstance(value, int):
                known[key] = there + value
            elif isinstance(value, float):
                known[key] = max(there, value)
            elif value not in there.split(", "):
                known[key] = f"{there}, {value}"
    return list(by_name.values())


def table(rows: list[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row if key != "name"))

    def title(column: str) -> str:
        for end, unit in (("_s", " (s)"), ("_mb", " (MB)")):
            if column.endswith(end):
                return column.removesuffix(end).replace("_", " ") + unit
        return column.replace("_", " ")

    def shown(value: Any) -> str:
        return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)

    lines = [["", *map(title, columns)], ["---"] * (len(columns) + 1)]
    lines += [[row["name"], *(shown(row.get(column)) for column in columns)] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def document(rows: list[dict[str, Any]]) -> str:
    parts = [
        HEAD + f"Last run: Python {platform.python_version()}, redis-py {version('redis')}, LangGraph {version('langgraph')}, "
        f"{os.cpu_count()} cores, servers in containers.\n"
    ]
    left = merged(rows)
    for family in FAMILIES:
        mine = [row for row in left if row["name"].startswith(family.begins)]
        left = [row for row in left if row not in mine]
        if mine:
            parts.append(f"## {family.title}\n\n{family.claim}\n\n{table(mine)}\n\nNot claimed: {family.no_claim}\n")
    for first in dict.fromkeys(row["name"].split()[0] for row in left):
        parts.append(f"## {first.capitalize()}\n\n{table([row for row in left if row['name'].split()[0] == first])}\n")
    return "\n".join(parts)


def main(kept: list[str]) -> int:
    if not kept:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "figures")
            command = [sys.executable, "-m", "pytest", str(HERE), "-m", ""]
            status = subprocess.run(command, env={**os.environ, "LGRS_FIGURES": str(file)}, check=False).returncode
            return status or main([str(file)])
    rows = [json.loads(line) for file in kept for line in Path(file).read_text().splitlines()]
    if not rows:
        print("No figures.", file=sys.stderr)
        return 1
    DOCUMENT.write_text(document(rows))
    print(f"{len(rows)} figures written to {DOCUMENT.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
