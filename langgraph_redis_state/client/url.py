"""URLs of servers: parsed, and shown without the password. No I/O."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

# valkey:// and valkeys:// are other names for redis:// and rediss://, also before +cluster and +sentinel.
_VALKEY = re.compile(r"^valkey(?=s?(\+|$))")
SCHEMES = {
    "redis": "redis://[user:password@]host[:port][/db]",
    "rediss": "rediss://[user:password@]host[:port][/db]",
    "unix": "unix://[user:password@]/path/to/socket[?db=0]",
    "redis+cluster": "redis+cluster://[user:password@]host[:port],host[:port]",
    "rediss+cluster": "rediss+cluster://[user:password@]host[:port],host[:port]",
    "redis+sentinel": "redis+sentinel://[user:password@]host[:port],host[:port]/service[/db]",
    "rediss+sentinel": "rediss+sentinel://[user:password@]host[:port],host[:port]/service[/db]",
}


@dataclass(frozen=True)
class ServerAddress:
    """A parsed URL. Its messages never repeat a part of the URL: a password with a ``/`` in it can be in any."""

    scheme: str
    nodes: tuple[tuple[str, int], ...] = ()
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    path: str = ""
    service: str = ""
    db: int = 0
    query: str = field(default="", repr=False)

    @property
    def tls(self) -> bool:
        return self.scheme.startswith("rediss")

    @property
    def topology(self) -> str:
        """``redis``, ``unix``, ``cluster`` or ``sentinel``."""
        return self.scheme.partition("+")[2] or ("unix" if self.scheme == "unix" else "redis")

    def __str__(self) -> str:
        user = f"{urllib.parse.quote(self.username or '')}:***@" if self.password else ""
        if not self.password and self.username:
            user = f"{urllib.parse.quote(self.username)}@"
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.nodes)
        end = {
            "redis": f"/{self.db}",
            "unix": f"{self.path}?db={self.db}",
            "cluster": "",
            "sentinel": f"/{self.service}/{self.db}",
        }[self.topology]
        return f"{self.scheme}://{user}{hosts}{end}"

    @classmethod
    def parse(cls, url: str) -> ServerAddress:
        if not isinstance(url, str):
            raise TypeError(
                f"A URL is text such as redis://localhost:6379/0, not {type(url).__name__}; a client is passed as client=."
            )
        scheme = url.partition("://")[0].lower() if "://" in url else ""
        scheme = _VALKEY.sub("redis", scheme)
        if scheme not in SCHEMES:
            # the scheme alone: what follows may hold a password
            found = f"begins with {scheme}://" if scheme.replace("+", "").isalnum() else "has no scheme"
            raise ValueError(f"Not a URL of a Redis server, it {found}; allowed are: {', '.join(SCHEMES.values())}.")

        def wrong(what: str) -> ValueError:
            return ValueError(
                f"A {scheme}:// URL {what}; it looks like {SCHEMES[scheme]}, and special characters in a user or "
                "password are percent-encoded."
            )

        start, slashes, rest = url.partition("://")
        authority = re.split("[/?#]", rest, maxsplit=1)[0]
        # without the hosts: newer versions of Python refuse brackets that do not stand around all of them
        parts = urllib.parse.urlsplit(start + slashes + rest[len(authority) :])
        if parts.fragment:
            raise wrong("has no fragment (#)")
        auth, _, hosts = authority.rpartition("@")
        username, _, password = (urllib.parse.unquote(part) for part in auth.partition(":"))
        segments = [urllib.parse.unquote(part) for part in parts.path.strip("/").split("/")]
        query = urllib.parse.parse_qs(parts.query)
        db_text, service = "", ""

        if scheme == "unix":
            if hosts or len(parts.path) < 2:
                raise wrong("takes an absolute path, after three slashes")
        else:
            if scheme.endswith("sentinel"):
                service, *segments = segments
                if not service:
                    raise wrong("names the service after the hosts")
            if len(segments) > 1:
                raise wrong("has nothing after the hosts but what is shown here")
            db_text = segments[0] if segments else ""
        db_text = query.pop("db", [db_text])[0]
        if db_text and not (db_text.isascii() and db_text.isdigit()):
            raise wrong("takes a number as database")
        if scheme.endswith("cluster") and int(db_text or 0):
            raise wrong("has no database number: a cluster has only database 0")

        return cls(
            scheme=scheme,
            nodes=() if scheme == "unix" else tuple(_nodes(scheme, hosts, wrong)),
            username=username or None,
            password=password or None,
            path=urllib.parse.unquote(parts.path) if scheme == "unix" else "",
            service=service,
            db=int(db_text or 0),
            query=urllib.parse.urlencode(query, doseq=True),
        )


def _nodes(scheme: str, hosts: str, wrong: Callable[[str], ValueError]) -> Iterator[tuple[str, int]]:
    """Host and port of each server that a URL names."""
    default_port = 26379 if scheme.endswith("sentinel") else 6379
    for text in hosts.split(",") if scheme.partition("+")[1] else [hosts]:
        try:
            server = urllib.parse.urlsplit(f"//{text}")
            host, port = server.hostname, server.port
        except ValueError:
            host = port = None
        if not host or port == 0:
            raise wrong("needs a host (an IPv6 address stands in brackets), and takes a number from 1 to 65535 as port")
        yield urllib.parse.unquote(host), port or default_port
