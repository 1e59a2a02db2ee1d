"""Facts about the house: three floors, imports that point down, modules that can be read."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GROUND = [ROOT / f"{name}.py" for name in ("utils", "networks", "augment")]
HOUSE = sorted((ROOT / "bacon").glob("*.py"))
SCRIPTS = sorted(path for path in ROOT.glob("*.py") if path not in GROUND)
LONGEST = {"distill.py": 400}  # lines; else 450


def named(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.name)


def imported(path):
    """Every module that a file imports, within functions too, with dots: `from bacon import data` is bacon.data."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: line {node.lineno}"
            modules |= {f"bacon.{alias.name}" for alias in node.names} if node.module == "bacon" else {node.module}
    return modules


def packages(path):
    """The packages of `imported` that do not come with Python."""
    return {module.partition(".")[0] for module in imported(path)} - sys.stdlib_module_names


def floor():
    """The graph of imports in bacon/: {name: names that it imports}."""
    inside = {path.stem: {m.split(".")[1] for m in imported(path) if m.startswith("bacon.")} for path in HOUSE}
    assert {name for names in inside.values() for name in names} <= inside.keys()
    return inside


@named(GROUND)
def test_the_ground_floor_imports_torch_and_numpy_only_and_utils(path):
    above = {module for module in imported(path) if module.startswith("bacon.")}
    assert above <= ({"bacon.formation"} if path.stem == "augment" else set())
    assert packages(path) <= {"torch", "numpy", "utils", "bacon"} - {path.stem}


@named(HOUSE)
def test_nothing_in_bacon_imports_a_script(path):
    assert not packages(path) & {script.stem for script in SCRIPTS}


def test_no_imports_in_bacon_go_round_in_circles():
    graphlib.TopologicalSorter(floor()).prepare()  # CycleError names them


def test_scripts_import_nothing_but_bacon():
    assert len(SCRIPTS) == 5
    for path in SCRIPTS:
        assert packages(path) == {"bacon"}


@pytest.mark.parametrize("name", ["recipes", "flags", "errors"])
def test_flags_and_recipes_need_no_package(name):
    assert set().union(*(packages(ROOT / "bacon" / f"{module}.py") for module in reached(name))) <= {"bacon"}


def reached(name):
    """A module of bacon/ and all those of bacon/ that it imports, directly or not."""
    graph, found, ahead = floor(), set(), {name}
    while ahead:
        found |= ahead
        ahead = set().union(*(graph[module] for module in ahead)) - found
    return found


def test_a_set_is_loaded_by_torch_alone():
    modules = reached("canvases")
    needed = set().union(*(packages(ROOT / "bacon" / f"{module}.py") for module in modules))
    assert needed <= {"bacon", "torch", "numpy"}  # numpy: to start canvases, when that is done


def test_formation_is_below_the_ground_floor():
    assert packages(ROOT / "bacon/formation.py") == {"torch"}


def test_help_comes_before_torch_is_imported():
    program = "import runpy, sys, atexit; sys.argv = ['BACON_cifar10.py', '--help']\n"
    program += "atexit.register(lambda: print('torch' in sys.modules, 'numpy' in sys.modules))\n"
    program += "runpy.run_path('BACON_cifar10.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "usage: BACON_cifar10.py" in done.stdout and done.stdout.endswith("False False\n")


@named([*GROUND, *HOUSE, *SCRIPTS])
def test_every_module_is_short_enough_to_read_and_says_what_it_owns(path):
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST.get(path.name, 450)
    assert ast.get_docstring(ast.parse(text))


def test_the_package_itself_is_a_docstring():
    (statement,) = ast.parse((ROOT / "bacon/__init__.py").read_text()).body
    assert isinstance(statement, ast.Expr)
