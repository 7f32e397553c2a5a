"""The house of design.md holds: rooms import downwards, `__init__` files are empty, the doors only delegate.

import-linter holds the contracts; it does not see what an `__init__` loads or files outside of packages, so this does.
"""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("oncall", "workflows", "activities", "estate")
DOORS = ("starter.py", "worker.py")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the import contracts over a tree."""
    program = "from importlinter.cli import lint_imports_command as lint; lint(['--no-cache'])"
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def test_init_files_stay_empty() -> None:
    full = [str(p.relative_to(ROOT)) for room in ROOMS for p in (ROOT / room).rglob("__init__.py") if p.read_text()]
    assert full == []


def test_a_process_that_investigates_holds_nothing_that_changes() -> None:
    program = (
        "import activities.investigate, sys;"
        "print([m for m in sys.modules if m.startswith('oncall.remedies') or m == 'oncall.access.write'])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("door", DOORS)
def test_a_door_only_delegates(door: str) -> None:
    text = (ROOT / door).read_text()
    assert len(text.splitlines()) < 100
    tree = ast.parse(text)
    assert not [node for node in tree.body if isinstance(node, ast.ClassDef)]
    functions = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert functions == ["main"]
    loops = [node for node in ast.walk(tree) if isinstance(node, ast.For | ast.While)]
    assert loops == []


def test_no_file_is_over_500_lines() -> None:
    files = [p for room in (*ROOMS, "tests", "benchmarks") for p in (ROOT / room).rglob("*.py")]
    assert [str(p) for p in files if len(p.read_text().splitlines()) > 500] == []


@pytest.fixture
def copy_of_the_house(tmp_path: Path) -> Path:
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".importlinter", tmp_path)
    return tmp_path


def test_the_contracts_pass_as_the_house_stands(copy_of_the_house: Path) -> None:
    done = lint(copy_of_the_house)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("activities/investigate.py", "import oncall.remedies.catalogue"),
        ("oncall/tools/toolkit.py", "import oncall.access.write"),
        ("oncall/analyst/examine.py", "from oncall.remedies import remedy"),
        ("oncall/model/agent.py", "import oncall.rules.roster"),
        ("workflows/gate.py", "import oncall.temporal.client"),
        ("workflows/incident.py", "import activities.investigate"),
        ("oncall/cli/main.py", "import estate.postgres"),
        ("estate/topology.py", "import oncall.model.topology"),
    ],
)
def test_the_contracts_fail_when_a_room_reaches_where_it_must_not(
    copy_of_the_house: Path, file: str, line: str
) -> None:
    path = copy_of_the_house / file
    path.write_text(f"{path.read_text()}\n\n{line}\n")
    done = lint(copy_of_the_house)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "BROKEN" in done.stdout
