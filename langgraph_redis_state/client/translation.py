"""Translates errors of the client library into errors of this package, by one table. The first row that matches applies.

A server that refuses is `ServerRefusedError`; one that gives no answer is `ServerUnavailableError`. `CheckpointCorruptError` is
only for a key of another type, and for a script that could not read what it found. A row is a pattern for one line of text:
`single` or `cluster` (what the client is for), the names of the error's classes in <>, and behind `: ` what it says. Classes
are known by their names, since valkey-py has those of redis-py under its own root. Inside a script each server words errors in
its own way: the texts of Redis 6.2 to 8.0 and Valkey 8.1 stand in tests/unit/test_translation.py, and
integration_tests/test_refusal_texts.py provokes them.
"""

from __future__ import annotations

import re

from ..effects import Call, Calls, Read, ReplyMismatch, Scan
from ..errors import CheckpointCorruptError, CheckpointerError, ServerRefusedError, ServerUnavailableError
from .workarounds import closed_meanwhile, node_without_slot

MOVING_SECONDS = 60.0
"""How long a Cluster may take to move a slot before a call that needs it fails."""

_Refused, _Unavailable, _Corrupt = ServerRefusedError, ServerUnavailableError, CheckpointCorruptError

_USER = "the server refused the user, password or rights ({text}); check the URL and ACL"
_NO_WRITES = "the server does not accept writes now ({text}); it"

TABLE: tuple[tuple[str, type[CheckpointerError], str], ...] = (
    # the connection
    (
        r"<RedisClusterException>.*(?i:not enabled)",
        _Unavailable,
        "the Cluster cannot be reached ({text}); it is a single server: use redis://",
    ),
    (r"<AuthenticationError>|<AuthenticationWrongNumberOfArgsError>", _Refused, _USER),
    (r"\bNOAUTH\b|\bWRONGPASS\b|unauthenticated|<RedisClusterException>.*: .*(?i:password|authenticat)", _Refused, _USER),
    (
        r"\bDENIED\b|(?i:running in protected mode)",
        _Refused,
        "the server accepts connections from its own machine only ({text}); give it a password, or set protected-mode no",
    ),
    (
        r"<MaxClientsError>|(?i:max number of clients|max concurrent connections exceeded)",
        _Unavailable,
        "the server has too many connections ({text}); raise maxclients or open fewer; repeating the call is safe",
    ),
    # rights
    (
        r"<NoPermissionError>|\bNOPERM\b|can't (run this command|access)|has no permissions|No permissions to|ACL failure",
        _Refused,
        "user, password or rights do not suffice ({text}); check the URL and ACL: docs/security.md lists them under Rights",
    ),
    (
        r"(?i)unknown (redis |valkey )?command|unsupported command|not allowed from script|command '?\w+'? not support|"
        r"command is (disabled|not allowed|not available)",
        _Refused,
        "the server does not offer a command that this needs ({text}); it is renamed, disabled, or unknown to this server or a "
        "proxy before it: allow it, or use another server",
    ),
    # what the server is doing
    (
        r"\bBUSY\b|\bUNKILLABLE\b|busy running a script",
        _Unavailable,
        "the server is busy with a script, maybe of somebody else ({text}); SCRIPT KILL ends one that only reads. "
        "Repeating the call is safe",
    ),
    (
        r"Script killed by user",
        _Refused,
        "somebody stopped the script on the server ({text}); nothing was written, and repeating the call is safe",
    ),
    (
        r"<BusyLoadingError>|\bLOADING\b",
        _Unavailable,
        "the server is starting and loads its data ({text}); repeating the call is safe",
    ),
    (
        r"<MasterDownError>|\bMASTERDOWN\b",
        _Refused,
        "the server is a replica without its primary ({text}); connect to the primary, or through Sentinel or Cluster",
    ),
    (r"\bNOREPLICAS\b", _Refused, _NO_WRITES + " lacks replicas"),
    (r"\bMISCONF\b", _Refused, _NO_WRITES + " cannot save to its disk"),
    (
        r"<ReadOnlyError>|\bREADONLY\b",
        _Refused,
        "the server is a read-only replica ({text}); connect to the primary, or through Sentinel or Cluster",
    ),
    (
        r"<OutOfMemoryError>|\bOOM\b",
        _Refused,
        "the server's memory is full ({text}); raise maxmemory, or free some: delete_thread and prune still work",
    ),
    (
        r"(?i)max (daily request|requests?) limit exceeded|max (request|single record|key) size exceeded|"
        r"capacity quota exceeded",
        _Refused,
        "the plan of the hosted server is used up or too small ({text}); wait, or change the plan",
    ),
    # clusters and proxies
    (
        r"^single .*(<MovedError>|<AskError>|>: (MOVED|ASK) )",
        _Refused,
        "this server is a node of a Cluster, and another one has the thread ({text}); connect with redis+cluster://, or with a "
        "RedisCluster client",
    ),
    (
        r"<ClusterCrossSlotError>|\bCROSSSLOT\b|non local key|undeclared key|hash to the same slot",
        _Refused,
        "the server looks for the keys of one call in several slots ({text}); a Cluster or proxy that ignores the {{...}} in "
        "names of keys cannot be used",
    ),
    (
        r"<ClusterDownError>|<SlotNotCoveredError>|\bCLUSTERDOWN\b|(?i:cluster is down|slot not served|slot is not served)",
        _Unavailable,
        "the Cluster is down, or has no node for the thread ({text}); {after}",
    ),
    (
        r"(?i)>: (ERR )?(no upstream host|upstream failure|upstream protocol error)",
        _Unavailable,
        "a proxy cannot reach its server ({text}); {after}",
    ),
    (
        r"\[SSL",
        _Unavailable,
        "no answer ({name}: {text}); check ssl_ca_certs, ssl_certfile and ssl_keyfile in redis_options; {after}",
    ),
    (r"<ConnectionError>|<TimeoutError>|<OSError>", _Unavailable, "no answer ({name}: {text}); {after}"),
    # what is stored
    (
        r"\bWRONGTYPE\b",
        _Corrupt,
        "a key holds another type than this package stores there ({text}); something else changed it, see verify",
    ),
    (
        r"user_script:\d+: (attempt to|bad argument|invalid|wrong number of arguments to '(insert|remove)')",
        _Corrupt,
        "a script could not read what is stored there ({text}); something else changed it, see verify",
    ),
    # anything else
    (r"<RedisClusterException>", _Unavailable, "the Cluster cannot be reached ({text}); {after}"),
    (r"<RedisError>|<ValkeyError>", _Refused, "the server refused ({name}: {text})"),
)


def slot_moves(error: Exception) -> bool:
    """Whether the Cluster did nothing because it is moving the slot. redis-py gives up on that after 16 attempts.

    A script names all keys of a thread. While some of them have moved, and also if all have moved and one of the named keys
    does not exist, both nodes redirect it.
    """
    name = type(error).__name__
    return (
        name in ("TryAgainError", "AskError", "MovedError")
        or ("ClusterError" in name and "TTL exhausted" in str(error))
        or node_without_slot(error)
    )


def translated(error: Exception, effect: Call | Calls | Read | Scan, where: str, in_cluster: bool) -> Exception:
    """The error of this package for one of the client library; others, programming errors among them, stay as they are."""
    if isinstance(error, CheckpointerError):
        return error
    calls = effect.calls if isinstance(effect, Calls) else [effect] if isinstance(effect, Call) else []
    found = meaning(error, any(call.script.writes for call in calls), in_cluster)
    if found is None:
        return error
    kind, sentence = found
    ours = kind(f"{effect.about}, on {where}: {sentence}")
    ours.__cause__ = error
    return ours


def said_by(error: Exception) -> str:
    """What the server said, without the arguments of an unknown command: those are the call's own keys, or its script."""
    return str(error).partition(", with args beginning with")[0]


def meaning(error: Exception, writes: bool, in_cluster: bool) -> tuple[type[CheckpointerError], str] | None:
    """The class and the sentence for an error, None for one that is not of the server or the client library."""
    names = [cls.__name__ for cls in type(error).__mro__]
    text = said_by(error)
    if isinstance(error, ReplyMismatch):
        return _Unavailable, (
            "the client library gave the answer to another call, and nothing of it was used; its idle connections "
            "were closed. Whether a write arrived is not known, repeating it is safe"
        )
    if "MasterNotFoundError" in names:
        # what follows is the whole of a client with all its settings, for each sentinel
        text = (
            f"{text.partition(' : ')[0]}; do the sentinels of the URL answer and know this service? What they "
            "want of a client, as a secret of their own, goes into redis_options as sentinel_kwargs"
        )
    if in_cluster and slot_moves(error):
        return _Unavailable, f"the Cluster has been moving the slot for {MOVING_SECONDS:.0f} s ({text}); nothing was done"
    if not {"RedisError", "ValkeyError", "RedisClusterException", "OSError"}.isdisjoint(names):
        line = f"{'cluster' if in_cluster else 'single'} <{'><'.join(names)}>: {text}".replace("\n", " ")
        after = (
            "whether the write arrived is not known, repeating it is safe"
            if writes
            else "is the server up, and the URL right? Repeating the call is safe"
        )
        for pattern, kind, sentence in TABLE:
            if re.search(pattern, line):
                return kind, sentence.format(name=names[0], text=text, after=after)
    if closed_meanwhile(error):
        return (
            _Unavailable,
            f"another call closed the connection ({text}); whether a write arrived is not known, repeating is safe",
        )
    return None
