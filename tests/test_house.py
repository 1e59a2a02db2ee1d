"""Facts about the house: three floors, imports that point down, rooms that say what they hold,
a test file for each module."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GROUND = [ROOT / f"{name}.py" for name in ("utils", "networks", "augment")]
PACKAGE = ROOT / "bacon"
TESTS = ROOT / "tests"
ROOMS = sorted(path for path in PACKAGE.iterdir() if (path / "__init__.py").exists())
HOUSE = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = sorted(path for path in ROOT.glob("*.py") if path not in GROUND)


def module_name(path):
    """The name of a file of bacon/ as it is imported: bacon.data.loading, and bacon.data."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in HOUSE}


def named(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: str(path.relative_to(ROOT)))


def imported(path):
    """Every module that a file imports, within functions too, with dots.

    `from bacon.data import loading` is bacon.data.loading, where that is a module.
    """
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: line {node.lineno}"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                modules.add(whole if whole in MODULES else node.module)
    return modules


def packages(path):
    """The packages of `imported` that do not come with Python."""
    return {module.partition(".")[0] for module in imported(path)} - sys.stdlib_module_names


def graph():
    """Which modules of bacon/ each of them imports: {name: names}."""
    found = {}
    for name, path in MODULES.items():
        found[name] = {module for module in imported(path) if module.startswith("bacon.")}
        assert found[name] <= MODULES.keys(), name
    return found


def reached(name):
    """A module of bacon/ and all those of bacon/ that it imports, directly or not."""
    edges = graph()
    found = set()
    ahead = {name}
    while ahead:
        found |= ahead
        ahead = set().union(*(edges[module] for module in ahead)) - found
    return found


def needed(name):
    """The packages that importing a module of bacon/ takes."""
    return set().union(*(packages(MODULES[module]) for module in reached(name)))


def room(name):
    """The folder of bacon/ that a module lies in, "" for the modules beside the folders."""
    parts = name.split(".")
    return parts[1] if PACKAGE / parts[1] in ROOMS else ""


@named(GROUND)
def test_the_ground_floor_imports_torch_and_numpy_only_and_utils(path):
    above = {module for module in imported(path) if module.startswith("bacon")}
    assert above <= ({"bacon.formation"} if path.stem == "augment" else set())
    assert packages(path) <= {"torch", "numpy", "utils", "bacon"} - {path.stem}


@named(HOUSE)
def test_nothing_in_bacon_imports_a_script(path):
    assert not packages(path) & {script.stem for script in SCRIPTS}


def test_no_imports_in_bacon_go_round_in_circles():
    graphlib.TopologicalSorter(graph()).prepare()  # CycleError names them


def test_imports_point_down_from_room_to_room():
    allowed = {
        "run": {"run", "distill", "data", ""},
        "score": {"score", "data", ""},
        "distill": {"distill", "data", ""},
        "data": {"data", ""},
        "": {"data", ""},
    }
    assert {path.name for path in ROOMS} == allowed.keys() - {""}
    for name, imports in graph().items():
        if name == "bacon":
            continue
        assert {room(module) for module in imports} <= allowed[room(name)], name


def test_scripts_import_nothing_but_bacon():
    assert len(SCRIPTS) == 5
    for path in SCRIPTS:
        assert packages(path) == {"bacon"}


@pytest.mark.parametrize("name", ["recipes", "methods", "flags", "errors"])
def test_flags_and_recipes_need_no_package(name):
    assert needed(f"bacon.{name}") <= {"bacon"}


def test_a_set_is_loaded_by_torch_alone():
    # numpy: to start canvases, when that is done
    assert needed("bacon.canvases") <= {"bacon", "torch", "numpy"}


def test_formation_is_below_the_ground_floor():
    assert packages(PACKAGE / "formation.py") == {"torch"}


def test_help_comes_before_torch_is_imported():
    program = "import runpy, sys, atexit; sys.argv = ['BACON_cifar10.py', '--help']\n"
    program += "atexit.register(lambda: print('torch' in sys.modules, 'numpy' in sys.modules))\n"
    program += "runpy.run_path('BACON_cifar10.py', run_name='__main__')"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "usage: BACON_cifar10.py" in done.stdout and done.stdout.endswith("False False\n")


@named([*GROUND, ROOT / "evaluate.py", *(path for path in HOUSE if path.stem != "__init__")])
def test_every_module_has_a_test_file_of_its_name(path):
    assert (TESTS / f"test_{path.stem}.py").exists()


def test_modules_of_two_rooms_never_have_the_same_name():
    names = [path.stem for path in [*GROUND, *HOUSE, *SCRIPTS] if path.stem != "__init__"]
    assert len(set(names)) == len(names)


@named(sorted(TESTS.glob("*.py")))
def test_no_file_imports_a_test_file(path):
    assert not [module for module in imported(path) if module.startswith("test_")]


@named([*GROUND, *HOUSE, *SCRIPTS])
def test_every_module_says_what_it_owns(path):
    assert ast.get_docstring(ast.parse(path.read_text()))


@named([PACKAGE, *ROOMS])
def test_a_package_is_nothing_but_a_docstring(path):
    (statement,) = ast.parse((path / "__init__.py").read_text()).body
    assert isinstance(statement, ast.Expr)
