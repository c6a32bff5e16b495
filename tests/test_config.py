import pytest

from wukong import config
from wukong.cost import PROCESSES
from wukong.errors import ConfigError


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    for name in config.NAMES:
        monkeypatch.delenv("WUKONG_" + name.upper(), raising=False)


def test_the_call_comes_before_set_and_set_before_the_environment(monkeypatch):
    assert config.resolve({}).granules == "auto"
    monkeypatch.setenv("WUKONG_GRANULES", "threads")
    assert config.resolve({}).granules == "threads"
    with config.set(granules="inline"):
        assert config.resolve({}).granules == "inline"
        assert config.resolve({"granules": "auto"}).granules == "auto"
    assert config.resolve({}).granules == "threads"


def test_set_holds_without_with_and_with_restores_what_stood_before():
    with config.set():
        config.set(workers=3)
        with config.set(workers=4, store="embedded"):
            assert config.resolve({}) == config.Options(workers=4, store="embedded")
        assert config.resolve({}) == config.Options(workers=3)
    assert config.resolve({}) == config.Options()


def test_workers_from_the_environment_are_a_number(monkeypatch):
    monkeypatch.setenv("WUKONG_WORKERS", "2")
    assert config.resolve({}).workers == 2


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("platform", "moon", "local"),
        ("granules", "fibres", "auto, inline, threads, processes"),
        ("workers", 0, "positive integer"),
        ("workers", True, "positive integer"),
        ("attempts", 0, "positive integer"),
        ("attempts", None, "positive integer"),
        ("stragglers", 1, "True or False"),
        ("store", "ftp://x", "redis://"),
        ("stroe", "embedded", "platform, granules, workers, store"),
    ],
)
def test_what_is_not_allowed_is_refused_with_what_is(name, value, allowed):
    for refused in (lambda: config.resolve({name: value}), lambda: config.set(**{name: value})):
        with pytest.raises(ConfigError, match=name) as error:
            refused()
        assert allowed in str(error.value)


def test_a_refused_variable_is_named(monkeypatch):
    monkeypatch.setenv("WUKONG_WORKERS", "many")
    with pytest.raises(ConfigError, match="WUKONG_WORKERS"):
        config.resolve({})


def test_a_refused_store_does_not_show_its_password():
    with pytest.raises(ConfigError) as error:
        config.resolve({"store": "mongo://user:secret@host"})
    assert "secret" not in str(error.value)


def test_progress_is_a_truth_value_and_in_the_environment_a_word_for_one(monkeypatch):
    monkeypatch.setenv("WUKONG_PROGRESS", "1")
    assert config.resolve({}).progress is True
    monkeypatch.setenv("WUKONG_PROGRESS", "False")
    assert config.resolve({}).progress is False
    monkeypatch.setenv("WUKONG_PROGRESS", "maybe")
    with pytest.raises(ConfigError, match=r"WUKONG_PROGRESS sets progress='maybe'.*1 or 0"):
        config.resolve({})
    with pytest.raises(ConfigError, match="True or False"):
        config.resolve({"progress": 1})


def test_attempts_are_a_number_and_stragglers_a_truth_value_also_in_the_environment(monkeypatch):
    assert (config.resolve({}).attempts, config.resolve({}).stragglers) == (PROCESSES.attempts, True)
    monkeypatch.setenv("WUKONG_ATTEMPTS", "1")
    monkeypatch.setenv("WUKONG_STRAGGLERS", "0")
    assert (config.resolve({}).attempts, config.resolve({}).stragglers) == (1, False)
    monkeypatch.setenv("WUKONG_ATTEMPTS", "-1")
    with pytest.raises(ConfigError, match=r"WUKONG_ATTEMPTS sets attempts='-1'.*positive integer"):
        config.resolve({})


def test_a_budget_is_a_positive_number_of_seconds(monkeypatch):
    monkeypatch.setenv("WUKONG_BUDGET", "1.5")
    assert config.resolve({}).budget == 1.5
    assert config.resolve({"budget": 60}).budget == 60
    assert config.resolve({"budget": None}).budget is None
    for wrong in (0, -1, float("inf"), float("nan"), True, "60"):
        with pytest.raises(ConfigError, match="positive number of seconds"):
            config.resolve({"budget": wrong})
    monkeypatch.setenv("WUKONG_BUDGET", "soon")
    with pytest.raises(ConfigError, match="WUKONG_BUDGET sets budget='soon'"):
        config.resolve({})
