"""What padding of sizes would cost: `python -m benchmarks.padding` prints the bytes of encrypted threads, if each chunk and
each body of a record were padded before encryption, as ratios of what is stored.

To multiples of 64 or 256 bytes, to a power of two, or by Padmé (a length of n bits keeps its first log2(n) + 1 bits): "Reducing
Metadata Leakage from Encrypted Files and Communication with PURBs", Nikitin et al., 2019.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from langgraph_redis_state import EmbeddedServer, RedisSaver
from langgraph_redis_state.storage import keys, records, thread_fields

from .workloads import Thread, agent, chat

KEY = bytes(range(32))


def padme(size: int) -> int:
    if size < 2:
        return size
    exponent = size.bit_length() - 1
    mask = (1 << exponent - exponent.bit_length()) - 1
    return (size + mask) & ~mask


WAYS: dict[str, Callable[[int], int]] = {
    "multiples of 64": lambda size: -(-size // 64) * 64,
    "multiples of 256": lambda size: -(-size // 256) * 256,
    "Padmé": padme,
    "powers of two": lambda size: 1 << max(size - 1, 0).bit_length(),
}

LOADS = {"chat of 500": lambda: chat(500), "chat of 50": lambda: chat(50), "agent of 100 steps": lambda: agent(100)}


def ciphertexts(saver: RedisSaver, thread: str) -> list[int]:
    """The sizes of all that is encrypted: chunks and bodies."""
    target = saver._engine.address(thread)
    sizes = []
    for name, content in saver.client.hgetall(target.keys.hash).items():
        if name[:1] == b"D":
            sizes.append(len(content) - 22)
            continue
        raws = [content] if name[:1] == b"C" else []
        if name[:1] == b"W" and keys.segment_of(name) != b"":
            place = target.place(b"W", *keys.split_field(name))
            raws = list(thread_fields.split_writes(thread_fields.as_list(content)[1], place))
        sizes += [len(records.parsed(raw, target.place(name[:1], b"", b""))[2]) for raw in raws]
    return sizes


def main() -> None:
    logging.getLogger("langgraph_redis_state").setLevel(logging.ERROR)
    print(f"| stored | bytes | chunks and bodies | median | {' | '.join(WAYS)} |")
    print("| --- " * (4 + len(WAYS)) + "|")
    with EmbeddedServer.start() as server, RedisSaver(server.url, encryption_key=KEY) as saver:
        for name, load in LOADS.items():
            Thread(saver, name).play(load())
            stored, sizes = saver.stats(name).stored_bytes, sorted(ciphertexts(saver, name))
            ratios = [(stored + sum(way(size) - size for size in sizes)) / stored for way in WAYS.values()]
            cells = [f"{stored:,}", f"{len(sizes):,}", f"{sizes[len(sizes) // 2]}", *(f"{ratio:.2f}" for ratio in ratios)]
            print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
