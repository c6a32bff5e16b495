"""`rediss://` speaks TLS and verifies whom it speaks to. The certificate beside this file is for localhost only."""

import shutil
from pathlib import Path

import pytest

from tests import servers
from wukong.errors import StoreUnavailable
from wukong.storage.open import connect

TLS = Path(__file__).parent / "tls"


@pytest.fixture(scope="module")
def tls_port():
    binary = shutil.which("redis-server")
    assert binary, "these tests need redis-server 7 on PATH: apt-get install redis-server"
    plain, tls = servers.free_ports(2)
    files = ("--tls-cert-file", str(TLS / "cert.pem"), "--tls-key-file", str(TLS / "key.pem"))
    with servers.started(binary, plain, "--tls-port", str(tls), "--tls-auth-clients", "no", *files):
        yield tls


def test_a_certificate_of_the_authority_given_is_accepted(tls_port):
    link = connect(f"rediss://localhost:{tls_port}?ssl_ca_certs={TLS / 'cert.pem'}")
    link.call(b"x", b"SET", b"x", b"y" * 300_000)
    assert link.call(b"x", b"GET", b"x") == b"y" * 300_000
    link.close()


def test_a_certificate_nobody_vouches_for_is_refused_unless_told_otherwise(tls_port):
    with pytest.raises(StoreUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        connect(f"rediss://localhost:{tls_port}").call(b"", b"PING")
    link = connect(f"rediss://localhost:{tls_port}?ssl_cert_reqs=none")
    assert link.call(b"", b"PING") == b"PONG"
    link.close()


def test_a_plain_client_of_a_tls_port_is_told_that_nobody_answers(tls_port):
    with pytest.raises(StoreUnavailable):
        connect(f"redis://localhost:{tls_port}", timeout=2.0).call(b"", b"PING")
