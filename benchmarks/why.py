"""Why a target is not met, by the beginning of its name; printed only where it is not. It quotes no figure of a run:
the page has those of its own."""

WHY = {
    "Redis memory, deep-agent": (
        "RedisJSON keeps equal strings once for the whole server, so a file that did not change costs "
        "langgraph-checkpoint-redis a pointer: of the state only its first copy and the edited files are stored, uncompressed. "
        "What remains here is mostly that first copy too, which only compression makes smaller. By the sum of MEMORY USAGE, "
        "which counts a shared string as often as it is used, and against the savers without modules, the target is met."
    ),
    "Redis memory, sliding window": (
        "Each step drops the first message and appends one, so the first and the last run of messages are stored anew, with "
        "a record and a pending write. langgraph-checkpoint-redis stores the new message, and pointers to the strings of the "
        "old ones, which RedisJSON shares. Smaller runs (`python -m benchmarks.sweep`) would cost more chunks to read."
    ),
    "put, chat of 500, against InMemorySaver": (
        "What is left where no message is serialized again: packing 500 messages to see that they did not change, joining them "
        "to runs, the record, redis-py and a round trip; the profile below has the share of each."
    ),
    "put, chat of 500, against the best": (
        "The others serialize all messages and send the whole state (the table of traffic has its bytes), which is cheap on a "
        "loopback interface."
    ),
    "put, chat of 10": (
        "The floor is one command without logic. The script, which checks references, tombstone, counts and expiry and "
        "writes record and indexes, takes the server about half of what the floor takes in all (the profiles below have the "
        "time of a script); to that come cutting, checksums, the record, and redis-py with the keys and arguments of a script."
    ),
    "put_writes, chat of 10": (
        "The floor is one command without logic, nearly all of it CPU time of the client. The script that checks what is there "
        "takes the server more than half of what the floor takes in all (the profiles below), and that comes on top."
    ),
    "get_tuple latest, chat of 500, against InMemorySaver": (
        "Reviving 500 messages is most of the time for both. To that come a round trip, the record and joining the chunks, "
        "which are remembered; *this, cache_bytes=0* receives, inflates and verifies them each time."
    ),
    "server blocked": (
        "A removal reads the names of all fields of the thread with one command, and one script removes the records, index "
        "entries and chunks of thousands of checkpoints at once, because a removal is whole or not at all. It handles what "
        "goes or what stays, whichever is less; where both are much, what stays was copied by short scripts before."
    ),
    "64 async threads": (
        "One Python thread does all the work, so what counts is CPU time for each call. Calls of many threads leave in shared "
        "packets, which spares most of what redis-py and asyncio take. At 20 messages every state is small, and cutting, "
        "checksums and records take more CPU than they save: the times of a chat of 10 messages below say how much."
    ),
    "event loop stall": (
        "The state is serialized before the first await, so that it may change as soon as `aput` waits: that is the stall of "
        "a put, as it is InMemorySaver's. Decoding runs in a worker thread, but the serializer holds the GIL. "
        "Below stands what the serializer alone takes, and what is left of the calls without it."
    ),
    "of that, without the serializer": (
        "Work on more than 256 KB runs in a worker thread. While it is Python, the loop gets the interpreter's lock after 5 ms "
        "(`sys.getswitchinterval`) at the latest."
    ),
    "import time": (
        "It is files that are opened, of lz4, msgspec and this package, and so takes longer on a busy machine. redis is not "
        "among them; it is imported when first used."
    ),
}
