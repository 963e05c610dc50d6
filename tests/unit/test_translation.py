"""What a server or a proxy said, word for word, and which error of the package it becomes. The texts of servers were taken from
them by redis-py (integration_tests/test_refusal_texts.py provokes them again), those of proxies from their documentation."""

from __future__ import annotations

import pytest
import redis
from redis import exceptions
from shapes import at, put

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.client.translation import meaning
from langgraph_redis_state.errors import CheckpointCorruptError, CheckpointerError, ServerRefusedError, ServerUnavailableError

OLD = "Error running script (call to f_3c44b7a40779a5c68a6e3920550ff76660a813aa): @user_script:1: "
NEW = " script: 3c44b7a40779a5c68a6e3920550ff76660a813aa, on @user_script:1."
RIGHTS, COMMAND, BUSY = "rights do not suffice", "does not offer a command", "busy with a script"
STOPPED, FULL, REPLICA = "somebody stopped the script", "memory is full", "read-only replica"
REFUSED, AWAY = ServerRefusedError, ServerUnavailableError

SAID: list[tuple[str, str, type[CheckpointerError], str]] = [
    # inside scripts: Redis 6.2, 7.0, 8.0 and Valkey 8.1
    ("ResponseError", OLD + "@user_script: 1: This Redis command is not allowed from scripts", REFUSED, COMMAND),
    ("ResponseError", "This Redis command is not allowed from script" + NEW, REFUSED, COMMAND),
    ("ResponseError", OLD + "@user_script: 1: Unknown Redis command called from Lua script", REFUSED, COMMAND),
    ("ResponseError", "Unknown Redis command called from script" + NEW, REFUSED, COMMAND),
    ("ResponseError", "Unknown command called from script" + NEW, REFUSED, COMMAND),
    (
        "ResponseError",
        OLD + "@user_script: 1: The user executing the script can't run this command or subcommand",
        REFUSED,
        RIGHTS,
    ),
    ("ResponseError", "The user executing the script can't run this command or subcommand" + NEW, REFUSED, RIGHTS),
    (
        "ResponseError",
        "The user executing the script can't access at least one of the keys mentioned in the command arguments" + NEW,
        REFUSED,
        RIGHTS,
    ),
    ("ResponseError", "ACL failure in script: User u has no permissions to run the 'zadd' command" + NEW, REFUSED, RIGHTS),
    ("ResponseError", "ACL failure in script: No permissions to access a key" + NEW, REFUSED, RIGHTS),
    (
        "ResponseError",
        OLD + "@user_script: 1: -READONLY You can't write against a read only replica.",
        REFUSED,
        REPLICA,
    ),
    ("ReadOnlyError", "You can't write against a read only replica." + NEW, REFUSED, REPLICA),
    ("ResponseError", OLD + "@user_script: 1: -NOREPLICAS Not enough good replicas to write.", REFUSED, "lacks replicas"),
    ("ResponseError", "NOREPLICAS Not enough good replicas to write." + NEW, REFUSED, "lacks replicas"),
    ("ResponseError", OLD + "@user_script: 1: -OOM command not allowed when used memory > 'maxmemory'.", REFUSED, FULL),
    ("OutOfMemoryError", "command not allowed when used memory > 'maxmemory'." + NEW, REFUSED, FULL),
    (
        "ResponseError",
        OLD + "@user_script: 1: -MISCONF Redis is configured to save RDB snapshots, but it is currently not able to persist on "
        "disk.",
        REFUSED,
        "cannot save to its disk",
    ),
    ("ResponseError", OLD + "Script killed by user with SCRIPT KILL...", REFUSED, STOPPED),
    ("ResponseError", "Script killed by user with SCRIPT KILL..." + NEW, REFUSED, STOPPED),
    ("ResponseError", "Script killed by user with SCRIPT KILL." + NEW, REFUSED, STOPPED),
    (
        "ResponseError",
        OLD + "@user_script: 1: Lua script attempted to access a non local key in a cluster node",
        REFUSED,
        "several slots",
    ),
    ("ResponseError", "Script attempted to access a non local key in a cluster node" + NEW, REFUSED, "several slots"),
    ("ResponseError", "Script attempted to access a slot not served" + NEW, AWAY, "no node for the thread"),
    (
        "ResponseError",
        OLD + "WRONGTYPE Operation against a key holding the wrong kind of value",
        CheckpointCorruptError,
        "a key holds another type",
    ),
    (
        "ResponseError",
        "WRONGTYPE Operation against a key holding the wrong kind of value" + NEW,
        CheckpointCorruptError,
        "a key holds another type",
    ),
    (
        "ResponseError",
        OLD + "user_script:1: attempt to perform arithmetic on local 'x' (a nil value)",
        CheckpointCorruptError,
        "a script could not read",
    ),
    (
        "ResponseError",
        "user_script:1: bad argument #1 to 'sub' (string expected, got nil)" + NEW,
        CheckpointCorruptError,
        "a script could not read",
    ),
    ("ResponseError", "user_script:1: too many results to unpack" + NEW, REFUSED, "the server refused"),
    # outside of scripts
    ("ResponseError", "unknown command `EVALSHA`, with args beginning with: `0`, `1`, ", REFUSED, COMMAND),
    ("ResponseError", "unknown command 'EVALSHA', with args beginning with: 'OOM' 'WRONGTYPE' ", REFUSED, COMMAND),
    ("NoPermissionError", "this user has no permissions to run the 'zadd' command or its subcommand", REFUSED, RIGHTS),
    ("NoPermissionError", "User u has no permissions to run the 'ping' command", REFUSED, RIGHTS),
    ("NoPermissionError", "No permissions to access a key", REFUSED, RIGHTS),
    ("AuthenticationError", "Authentication required.", REFUSED, "refused the user, password"),
    ("AuthenticationError", "invalid username-password pair or user is disabled.", REFUSED, "refused the user, password"),
    (
        "ResponseError",
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        AWAY,
        BUSY,
    ),
    (
        "ResponseError",
        "BUSY Valkey is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        AWAY,
        BUSY,
    ),
    (
        "ResponseError",
        "UNKILLABLE Sorry the script already executed write commands against the dataset. You can either wait the script "
        "termination or kill the server in a hard way using the SHUTDOWN NOSAVE command.",
        AWAY,
        BUSY,
    ),
    ("BusyLoadingError", "Redis is loading the dataset in memory", AWAY, "loads its data"),
    ("ConnectionError", "max number of clients reached", AWAY, "too many connections"),
    (
        "MasterDownError",
        "Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        REFUSED,
        "a replica without its primary",
    ),
    ("ClusterDownError", "Hash slot not served", AWAY, "the Cluster is down"),
    ("ClusterCrossSlotError", "Keys in request don't hash to the same slot", REFUSED, "several slots"),
    ("ExecAbortError", "Transaction discarded because of previous errors.", REFUSED, "the server refused"),
    ("ConnectionError", "Connection closed by server.", AWAY, "no answer"),
    ("TimeoutError", "Timeout reading from socket", AWAY, "no answer"),
    # Envoy
    ("ResponseError", "no upstream host", AWAY, "a proxy cannot reach its server"),
    ("ResponseError", "upstream failure", AWAY, "a proxy cannot reach its server"),
    ("ResponseError", "upstream protocol error", AWAY, "a proxy cannot reach its server"),
    # hosted: Alibaba Cloud, Upstash
    ("ResponseError", "command eval not support for normal user", REFUSED, COMMAND),
    ("ResponseError", "max daily request limit exceeded", REFUSED, "plan of the hosted server"),
    ("ResponseError", "max requests limit exceeded. ", REFUSED, "plan of the hosted server"),
    ("ResponseError", "max request size exceeded", REFUSED, "plan of the hosted server"),
    ("ResponseError", "max single record size exceeded", REFUSED, "plan of the hosted server"),
]


@pytest.mark.parametrize(("name", "text", "kind", "said"), SAID, ids=range(len(SAID)))
@pytest.mark.parametrize("in_cluster", [False, True], ids=["single", "cluster"])
def test_a_server_that_refuses_is_called_so(
    name: str, text: str, kind: type[CheckpointerError], said: str, in_cluster: bool
) -> None:
    found = meaning(getattr(exceptions, name)(text), True, in_cluster)
    assert found is not None
    assert found[0] is kind
    assert said in found[1]
    own, _, arguments = text.partition(", with args")
    assert own.strip() in found[1], "the server's own words are told"
    assert not arguments or "with args" not in found[1], "and not what the call sent"


def test_a_programming_error_stays_what_it_is() -> None:
    assert meaning(TypeError("unsupported operand"), True, False) is None
    assert meaning(AttributeError("'list' object has no attribute 'items'"), True, False) is None


async def test_a_key_of_another_type_is_damaged(saver: RedisSaver, raw: redis.Redis) -> None:
    await put(saver, at("t"), {"x": 1})
    thread = saver._engine.address("t").keys
    raw.delete(thread.all[1])
    raw.set(thread.all[1], "something else")
    with pytest.raises(CheckpointCorruptError, match="another type"):
        saver.get_tuple(at("t"))
