"""rights: which commands the server lets this user run, for each group of verbs. An operation that changes nothing."""

from __future__ import annotations

from ..effects import Operation
from ..operations.engine import Engine
from ..scripts import commands
from ..storage import keys

LEFT_OUT = frozenset({"HKEYS", "HSET", "HDEL", "PEXPIRE", "PEXPIREAT", "PERSIST", "RENAME", "SET", "UNLINK", "ZADD", "ZREM"})
"""Commands of scripts that read which a `read_only` saver never comes to: it refreshes no TTL and rebuilds no index."""

GROUPS = {
    "look": (commands.GET, commands.LIST, commands.WALK_ANCESTORS),
    "run graphs": (commands.PUT, commands.PUT_WRITES, commands.STAGE),
    "steer": (commands.FORK, commands.TAG, commands.SET_TTL, commands.COMMIT_COPY, commands.STAGE),
    "remove": (commands.DELETE_THREAD, commands.REMOVE, commands.MEASURE_PARTS),
    "verify": (commands.THREAD_STATE,),
    "repair": (commands.REPAIR,),
}
"""What verbs are for, and the scripts that they run."""

LOOKING = ("look", "verify")


def rights(engine: Engine) -> Operation[dict[str, dict[str, str]]]:
    needed = {
        name: frozenset({"GET"}).union(*(each.commands for each in scripts)) - (LEFT_OUT if name in LOOKING else frozenset())
        for name, scripts in GROUPS.items()
    }
    both = (keys.layout_key(engine.settings.prefix), keys.absent_key(engine.settings.prefix))
    tried = sorted(frozenset[str]().union(*needed.values()))
    _, denied = yield from commands.first_look(both, "", [], tried, f"rights for prefix {engine.settings.prefix!r}")
    return {name: {each: denied[each] for each in sorted(wanted & denied.keys())} for name, wanted in needed.items()}
