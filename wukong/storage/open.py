"""From a store's URL to a store. The only place that knows all of them."""

from collections.abc import Callable

from wukong.storage.address import DAY, Address, parse
from wukong.storage.control.redis import RedisControlStore
from wukong.storage.link import ClusterLink, Link
from wukong.storage.server import EmbeddedServer
from wukong.storage.values.redis import RedisValueStore


class EmbeddedLink(Link):
    """A link to a server started for it, which ends when the link is closed."""

    def __init__(self, timeout: float | None = None) -> None:
        self.server = EmbeddedServer()
        super().__init__(parse(self.server.url), timeout)

    def _may_return(self) -> bool:
        return not self.server.ended

    def close(self) -> None:
        """Close the connections and stop the server."""
        super().close()
        self.server.close()


def connect(url: str | Address, timeout: float | None = None) -> Link:
    """Return a link to the store at `url`; several stores can share it.

    Nothing is sent yet, except that ``embedded`` starts a server.

    Raises
    ------
    ConfigError
        If the URL is of no known form.
    ServerNotFound
        If an embedded server is asked for and there is no binary.
    """
    if url == "embedded":
        return EmbeddedLink(timeout)
    address = parse(url) if isinstance(url, str) else url
    return (ClusterLink if address.cluster else Link)(address, timeout)


def open_control(
    url: str | Address,
    shards: int = 1,
    ttl: int = DAY,
    timeout: float | None = None,
    clock: Callable[[], float] | None = None,
) -> RedisControlStore:
    """Return the control store at `url`; see `connect` and `RedisControlStore`."""
    return RedisControlStore(connect(url, timeout), shards, ttl, clock)


def open_values(url: str | Address, job: str, ttl: int = DAY, timeout: float | None = None) -> RedisValueStore:
    """Return the values of `job` in the store at `url`; see `connect` and `RedisValueStore`."""
    return RedisValueStore(connect(url, timeout), job, ttl)
