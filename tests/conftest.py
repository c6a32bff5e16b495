"""Fixtures that tests of several packages share: running servers, one of each kind a session."""

import signal
import sys

import pytest

from tests import servers
from wukong.storage.server import EmbeddedServer


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_interrupts():
    """Whoever is started in the background by a shell (``nohup make test &``) would ignore it, and so its children."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def embedded_url():
    """URL of a server as Wukong starts it for itself."""
    with EmbeddedServer() as server:
        yield server.url


@pytest.fixture(scope="session")
def tcp_url():
    """URL of a Redis 7 over TCP."""
    with servers.redis_over_tcp() as url:
        yield url


@pytest.fixture(scope="session")
def cluster_url():
    """URL of a cluster of three nodes."""
    with servers.cluster_of_three() as url:
        yield url


#: Every kind of server: the name of its fixture.
SERVERS = ("embedded_url", "tcp_url", "cluster_url")


@pytest.fixture(params=SERVERS)
def server_url(request):
    """URL of each kind of server in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture(autouse=True)
def _nothing_is_known_of_functions():
    """What `granules="auto"` has found out of functions holds for later jobs, but not for those of other tests."""
    adaptive = sys.modules.get("wukong.scheduler.adaptive")
    if adaptive is not None:
        adaptive._lasted.clear()
        adaptive._missed[0] = 0.0
