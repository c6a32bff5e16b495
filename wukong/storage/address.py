"""URLs of stores: which are understood, and how one is shown without its credentials. Opens nothing."""

from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from wukong.errors import ConfigError

#: What a store URL may look like.
FORMS = (
    "embedded",
    "unix://[user:password@]/path/of/socket[?db=0]",
    "redis://[user:password@]host[:port][/db]",
    "rediss://... (TLS)",
    "redis+cluster://[user:password@]host:port[,host:port...]",
    "rediss+cluster://... (TLS)",
)

#: Seconds that what nobody looks after stays in a store.
DAY = 86400


@dataclass(frozen=True)
class Address:
    """Where a server listens and how to be let in.

    Attributes
    ----------
    nodes : tuple of (str, int)
        Host and port of the server, or of some nodes of a cluster; a Unix socket's path with port 0.
    cluster : bool
        Whether the nodes share out the keys among themselves.
    tls : bool
        Whether to speak TLS; certificates are verified unless `verify` is false.
    username, password : str
        Empty for none.
    db : int
        Number of the database.
    timeout : float
        Seconds the server may take to answer.
    away : float
        Seconds that it may be gone, once it has answered, while it restarts or fails over: requests are sent again.
    ttl : int
        Seconds that what a job has there stays after the last of its processes has gone.
    spill : str, optional
        Directory for values that the server refuses; ``no`` for none; what is usual, if not given.
    """

    nodes: tuple[tuple[str, int], ...]
    cluster: bool = False
    tls: bool = False
    username: str = ""
    password: str = field(default="", repr=False)
    db: int = 0
    verify: bool = True
    authorities: str | None = None
    timeout: float = 10.0
    away: float = 30.0
    ttl: int = DAY
    spill: str | None = None

    def __str__(self) -> str:
        """Return the URL without credentials, for messages."""
        if not self.nodes[0][1]:
            return f"unix://{self.nodes[0][0]}"
        scheme = ("rediss" if self.tls else "redis") + ("+cluster" if self.cluster else "")
        return f"{scheme}://" + ",".join(f"{_bracketed(host)}:{port}" for host, port in self.nodes)


def parse(url: str) -> Address:
    """Parse a store URL.

    Options after ``?``: ``db``, ``timeout``, ``away``, ``ttl`` and ``spill`` (see `Address`), and for TLS
    ``ssl_ca_certs`` (a file of certificates) and ``ssl_cert_reqs=none``.

    Raises
    ------
    ConfigError
        If the URL is of no known form; lists those that are.
    """
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
        scheme, plus, kind = parts.scheme.partition("+")
        credentials, _, hosts = parts.netloc.rpartition("@")
        username, _, password = (unquote(part) for part in credentials.partition(":"))
        if scheme == "unix" and not plus and parts.path:
            nodes: tuple[tuple[str, int], ...] = ((unquote(parts.path), 0),)
            db = options.pop("db", "0")
        elif scheme in ("redis", "rediss") and kind in ("", "cluster") and (kind or not plus) and hosts:
            nodes = tuple(_node(host) for host in hosts.split(","))
            db = options.pop("db", parts.path.strip("/") or "0")
        else:
            raise ValueError("unknown scheme or nothing after it")
        address = Address(
            nodes,
            kind == "cluster",
            scheme == "rediss",
            username,
            password,
            int(db),
            options.pop("ssl_cert_reqs", "required") != "none",
            options.pop("ssl_ca_certs", None),
            _seconds(options, "timeout"),
            _seconds(options, "away"),
            int(_seconds(options, "ttl")),
            options.pop("spill", None),
        )
        if not address.ttl:
            raise ValueError("ttl is at least 1")
        if options or (len(nodes) > 1 and not kind):
            raise ValueError(
                f"unknown options {', '.join(sorted(options))}" if options else "several hosts, no +cluster"
            )
    except ValueError as error:
        scheme = url.split(":", 1)[0]
        raise ConfigError(
            f"store URL {redacted(url)!r} is not understood ({error}). A store is one of:\n  " + "\n  ".join(FORMS)
        ) from None
    return address


def redacted(url: str) -> str:
    """Return `url` without what stands between ``//`` and ``@``, and without options."""
    scheme, slashes, rest = url.split("?", 1)[0].partition("//")
    return scheme + slashes + rest.rsplit("@", 1)[-1]


def _seconds(options: dict[str, str], name: str) -> float:
    seconds = float(options.pop(name, getattr(Address, name)))
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"{name} is a number of seconds")
    return seconds


def _node(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("no host")
    return parts.hostname, parts.port or 6379


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
