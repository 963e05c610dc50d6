"""What an error of the client library means in this package: one table, read from the top; the first row that fits counts.

A server that refuses is `ServerRefusedError`; one that gives no answer is `ServerUnavailableError`. `CheckpointCorruptError` is
only for a key of another type, and for a script that could not read what it found. Errors are known by the names of their
classes, since valkey-py has those of redis-py under its own root, and by their text: inside a script each server words them in
its own way. The texts of Redis 6.2 to 8.0 and Valkey 8.1 stand in tests/unit/test_translation.py, and
integration_tests/test_refusal_texts.py provokes them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..effects import Call, Compute, Effect, ForeignReply
from ..errors import CheckpointCorruptError, CheckpointerError, ServerRefusedError, ServerUnavailableError
from .clients import closed_meanwhile
from .connection import Connection

MOVING_SECONDS = 60.0
"""How long a Cluster may take to move a slot before a call that needs it fails."""

_OF_A_NODE = ("redis_connection", "execute_command", "connection_kwargs", "connection")


@dataclass(frozen=True)
class Row:
    """An error fits if one of its classes is in `names`, or if `text` is found in its text; with `both`, if both hold."""

    kind: type[CheckpointerError]
    sentence: str
    """`{text}` is what the server or the client library said, `{name}` the class, `{after}` what that means for a write."""
    names: tuple[str, ...] = ()
    text: str = ""
    both: bool = False
    in_cluster: bool | None = None
    """Only for clients of a Cluster (True), or only for others (False)."""

    def fits(self, names: set[str], text: str, in_cluster: bool) -> bool:
        if self.in_cluster not in (None, in_cluster):
            return False
        of_class = not names.isdisjoint(self.names)
        found = bool(self.text) and re.search(self.text, text) is not None
        return of_class and found if self.both else of_class or found


_Refused, _Unavailable = ServerRefusedError, ServerUnavailableError

_SERVER = ("RedisError", "ValkeyError")

TABLE = (
    # the connection
    Row(
        _Unavailable,
        "the Cluster cannot be reached ({text}); it is a single server: use redis://",
        ("RedisClusterException",),
        "(?i)not enabled",
        both=True,
    ),
    Row(
        _Refused,
        "the server refused the user, password or rights ({text}); check the URL and ACL",
        ("AuthenticationError", "AuthenticationWrongNumberOfArgsError"),
        r"\bNOAUTH\b|\bWRONGPASS\b|unauthenticated",
    ),
    Row(
        _Refused,
        "the server refused the user, password or rights ({text}); check the URL and ACL",
        ("RedisClusterException",),
        r"(?i)password|authenticat",
        both=True,
    ),
    Row(
        _Refused,
        "the server accepts connections from its own machine only ({text}); give it a password, or set protected-mode no",
        text=r"\bDENIED\b|(?i:running in protected mode)",
    ),
    Row(
        _Unavailable,
        "the server has too many connections ({text}); raise maxclients or open fewer; repeating the call is safe",
        ("MaxClientsError",),
        r"(?i)max number of clients|max concurrent connections exceeded",
    ),
    # rights
    Row(
        _Refused,
        "user, password or rights do not suffice ({text}); check the URL and ACL: docs/architecture.md lists them under Rights",
        ("NoPermissionError",),
        r"\bNOPERM\b|can't (run this command|access)|has no permissions|No permissions to|ACL failure",
    ),
    Row(
        _Refused,
        "the server does not offer a command that this needs ({text}); it is renamed, disabled, or unknown to this server or a "
        "proxy before it: allow it, or use another server",
        text=r"(?i)unknown (redis |valkey )?command|unsupported command|not allowed from script|command '?\w+'? not support|"
        r"command is (disabled|not allowed|not available)",
    ),
    # what the server is doing
    Row(
        _Unavailable,
        "the server is busy with a script, maybe of somebody else ({text}); SCRIPT KILL ends one that only reads. "
        "Repeating the call is safe",
        text=r"\bBUSY\b|\bUNKILLABLE\b|busy running a script",
    ),
    Row(
        _Refused,
        "somebody stopped the script on the server ({text}); nothing was written, and repeating the call is safe",
        text=r"Script killed by user",
    ),
    Row(
        _Unavailable,
        "the server is starting and loads its data ({text}); repeating the call is safe",
        ("BusyLoadingError",),
        r"\bLOADING\b",
    ),
    Row(
        _Refused,
        "the server is a replica without its primary ({text}); connect to the primary, or through Sentinel or Cluster",
        ("MasterDownError",),
        r"\bMASTERDOWN\b",
    ),
    Row(_Refused, "the server does not accept writes now ({text}); it lacks replicas", text=r"\bNOREPLICAS\b"),
    Row(_Refused, "the server does not accept writes now ({text}); it cannot save to its disk", text=r"\bMISCONF\b"),
    Row(
        _Refused,
        "the server is a read-only replica ({text}); connect to the primary, or through Sentinel or Cluster",
        ("ReadOnlyError",),
        r"\bREADONLY\b",
    ),
    Row(
        _Refused,
        "the server's memory is full ({text}); raise maxmemory, or free some: delete_thread and prune still work",
        ("OutOfMemoryError",),
        r"\bOOM\b",
    ),
    Row(
        _Refused,
        "the plan of the hosted server is used up or too small ({text}); wait, or change the plan",
        text=r"(?i)max (daily request|requests?) limit exceeded|"
        r"max (request|single record|key) size exceeded|capacity quota exceeded",
    ),
    # clusters and proxies
    Row(
        _Refused,
        "this server is a node of a Cluster, and another one has the thread ({text}); connect with redis+cluster://, or with a "
        "RedisCluster client",
        ("MovedError", "AskError"),
        r"^(MOVED|ASK) ",
        in_cluster=False,
    ),
    Row(
        _Refused,
        "the server looks for the keys of one call in several slots ({text}); a Cluster or proxy that ignores the {{...}} in "
        "names of keys cannot be used",
        ("ClusterCrossSlotError",),
        r"\bCROSSSLOT\b|non local key|undeclared key|hash to the same slot",
    ),
    Row(
        _Unavailable,
        "the Cluster is down, or has no node for the thread ({text}); {after}",
        ("ClusterDownError", "SlotNotCoveredError"),
        r"\bCLUSTERDOWN\b|(?i:cluster is down|slot not served|slot is not served)",
    ),
    Row(
        _Unavailable,
        "a proxy cannot reach its server ({text}); {after}",
        text=r"(?i)^(ERR )?(no upstream host|upstream failure|upstream protocol error)",
    ),
    Row(
        _Unavailable,
        "no answer ({name}: {text}); check ssl_ca_certs, ssl_certfile and ssl_keyfile in redis_options; {after}",
        text=r"\[SSL",
    ),
    Row(_Unavailable, "no answer ({name}: {text}); {after}", ("ConnectionError", "TimeoutError", "OSError")),
    # what is stored
    Row(
        CheckpointCorruptError,
        "a key holds another type than this package stores there ({text}); something else changed it, see verify",
        text=r"\bWRONGTYPE\b",
    ),
    Row(
        CheckpointCorruptError,
        "a script could not read what is stored there ({text}); something else changed it, see verify",
        text=r"user_script:\d+: (attempt to|bad argument|invalid|wrong number of arguments to '(insert|remove)')",
    ),
    # anything else
    Row(_Refused, "the server refused ({name}: {text})", ("ResponseError",)),
    Row(_Unavailable, "the Cluster cannot be reached ({text}); {after}", ("RedisClusterException",)),
    Row(_Refused, "the server refused ({name}: {text})", _SERVER),
)


def slot_moves(error: Exception) -> bool:
    """Whether nothing was done because the Cluster is moving the slot, which redis-py waits for only a moment.

    A script names all keys of a thread; while some have moved and some not, and even when all have but one of the named does
    not exist, each node sends it away. redis-py gives up after 16 tries, and stumbles over a node that has no slot yet.
    """
    text = str(error)
    return (
        ("ClusterError" in type(error).__name__ and "TTL exhausted" in text)
        or type(error).__name__ in ("TryAgainError", "AskError", "MovedError")
        or (isinstance(error, AttributeError) and error.obj is None and error.name in _OF_A_NODE)
    )


def translated(error: Exception, effect: Effect, connection: Connection, in_cluster: bool) -> Exception:
    """The error of this package for one of the client library; others, programming errors among them, stay as they are."""
    if isinstance(error, CheckpointerError) or isinstance(effect, Compute):
        return error
    found = meaning(error, isinstance(effect, Call) and effect.script.writes, in_cluster)
    if found is None:
        return error
    kind, sentence = found
    ours = kind(f"{effect.about}, on {connection.where}: {sentence}")
    ours.__cause__ = error
    return ours


def meaning(error: Exception, writes: bool, in_cluster: bool) -> tuple[type[CheckpointerError], str] | None:
    """The class and the sentence for an error, None for one that is not of the server or the client library."""
    names = {cls.__name__ for cls in type(error).__mro__}
    text = str(error)
    if isinstance(error, ForeignReply):
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
    after = (
        "whether the write arrived is not known, repeating it is safe"
        if writes
        else "is the server up, and the URL right? Repeating the call is safe"
    )
    if not names.isdisjoint((*_SERVER, "RedisClusterException", "OSError")):
        told = text.partition(", with args beginning with")[0]  # what follows are the call's own keys
        for row in TABLE:
            if row.fits(names, told, in_cluster):
                return row.kind, row.sentence.format(name=type(error).__name__, text=text, after=after)
    if "AttributeError" in names and "NoneType" in text and "write" in text:
        # redis-py's async Cluster client, when another task reconnects the node it is about to write to
        return _Unavailable, f"the connection was closed before the command was sent ({text})"
    if closed_meanwhile(error):
        return (
            _Unavailable,
            f"another call closed the connection ({text}); whether a write arrived is not known, repeating is safe",
        )
    return None
