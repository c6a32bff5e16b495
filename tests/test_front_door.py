"""What holds for the repository as a whole: what an import loads, who knows whom, and what no file may name."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTED = {"dask.base", "dask.config"}
LAZY = ("boto3", "distributed", "matplotlib", "msgpack", "networkx", "numpy", "pandas", "pyarrow", "redis", "valkey")


def listed(*patterns):
    """Files under version control, those just written included."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs the repository: what git lists is what is looked at")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [path for name in names if (path := ROOT / name).is_file()]


@pytest.mark.parametrize("code", ["import wukong", "import wukong; wukong.compute({'a': (str, 1)}, keys='a')"])
def test_neither_importing_wukong_nor_a_small_run_loads_anything_heavy(code):
    code = f"import sys; {code}; print(*(name for name in {LAZY} if name in sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.split() == []


def test_outside_its_adapter_only_what_dask_documents_is_imported():
    found = set()
    for path in (ROOT / "wukong").rglob("*.py"):
        if path.is_relative_to(ROOT / "wukong/scheduler/dask"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    found = {name for name in found if name.partition(".")[0] == "dask"}
    assert found <= DOCUMENTED


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        ("plan/order.py", "import wukong.scheduler.run", "Imports between rooms go down only BROKEN"),
        ("storage/address.py", "import dask.optimization", "Only scheduler.dask knows Dask's internals BROKEN"),
        ("new_room.py", "", "new_room"),
    ],
)
def test_an_import_that_breaks_a_layer_is_found(tmp_path, file, line, said):
    shutil.copytree(ROOT / "wukong", tmp_path / "wukong", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "wukong" / file).open("a") as source:
        source.write(f"\n{line}\n")
    config = ["--config", ROOT / "pyproject.toml", "--no-cache"]
    command = [Path(sys.executable).with_name("lint-imports"), *config]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 1, ended.stdout
    assert said in ended.stdout


def test_no_file_names_a_machine_or_a_path_of_one():
    foreign = re.compile(r"(?<![\w.])/(?:home|Users|root|work|mnt|opt)/\w|\bpypi\.org|\b[\w-]+\.internal\b")
    found = []
    for path in listed():
        if path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if foreign.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert found == []


def test_every_link_in_the_documentation_leads_somewhere():
    links = [
        (page, target)
        for page in listed("*.md")
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
        if not re.match(r"\w+:", target)
    ]
    assert links
    assert [(page, target) for page, target in links if not (page.parent / target).exists()] == []


def test_every_make_target_in_the_documentation_is_one():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in listed("*.md", ".ci/run"):
        text = page.read_text()
        named = re.findall(r"`make ([a-z-]+)`|^ *make ([a-z-]+)\b", text, re.MULTILINE)
        assert {name for pair in named for name in pair if name} <= targets, page


def test_the_python_of_the_readme_runs(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    script = tmp_path / "readme.py"
    script.write_text("\n".join(blocks))
    command = [sys.executable, "-W", "error", script]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=110)
    assert ended.returncode == 0, ended.stderr
