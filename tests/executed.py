"""Which test executes which line of the product, measured once for a state of the tree."""

import collections
import contextlib
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = ["utils.py", "networks.py", "augment.py", "bacon/*"]
# Tests run in processes that are forked from one with these packages, which take seconds to import.
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["pytest", "torchvision", "sklearn.cluster"])
MOST = 60  # seconds of tests for a mutant; those of the module's own file run in any case


def tree_files(root):
    """The files of the tree that git does not ignore."""
    command = ["git", "-C", str(root), "ls-files", "-co", "--exclude-standard", "-z"]
    names = subprocess.run(command, capture_output=True, check=True).stdout.decode().split("\0")
    return sorted(name for name in names if name and (root / name).is_file())


def copy_tree(folder):
    for name in tree_files(ROOT):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    if (ROOT / "data").exists():
        (folder / "data").symlink_to(ROOT / "data")


class Recorder:
    """A pytest plugin: coverage by test and phase, seconds of each test, and which ones fail."""

    def __init__(self, measured):
        self.measured = measured
        self.seconds = collections.Counter()
        self.failing = set()

    def pytest_runtest_setup(self, item):
        self.measured.switch_context(f"{item.nodeid} (setup)")

    def pytest_runtest_call(self, item):
        self.measured.switch_context(f"{item.nodeid} (call)")

    def pytest_runtest_teardown(self, item):
        self.measured.switch_context(f"{item.nodeid} (teardown)")

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid] += report.duration
        if report.failed:
            self.failing.add(report.nodeid)


def record(folder, tests):
    """Run tests in this process, as in a copy of the tree, and write folder/record.json."""
    import coverage
    import pytest

    settings = folder / "coveragerc"
    included = ",".join(str(Path.cwd() / name) for name in PRODUCT)
    settings.write_text(
        f"[run]\nparallel = true\ndata_file = {folder}/coverage\ninclude = {included}\n"
        "context = ${PYTEST_CURRENT_TEST-}\npatch = _exit\ndisable_warnings = no-data-collected\n"
    )
    # In memory: a test that limits the size of files would break a file of coverage for good.
    measured = coverage.Coverage(data_file=None, config_file=str(settings))
    recorder = Recorder(measured)
    measured.start()
    os.environ["COVERAGE_PROCESS_START"] = str(settings)  # of the processes that tests start
    pytest.main(["-p", "no:cacheprovider", *tests], plugins=[recorder])
    del os.environ["COVERAGE_PROCESS_START"]
    measured.stop()
    data = measured.get_data()
    for path in folder.glob("coverage.*"):
        of_process = coverage.CoverageData(str(path))
        of_process.read()
        data.update(of_process)
    lines = {}
    for path in data.measured_files():
        found = data.contexts_by_lineno(path)
        lines[str(Path(path).relative_to(Path.cwd()))] = found
    held = {"seconds": recorder.seconds, "failing": sorted(recorder.failing), "lines": lines}
    (folder / "record.json").write_text(json.dumps(held))


def by_test(tree, tests):
    """What `record` wrote, kept under a hash of the tree's files and the tests."""
    digest = hashlib.sha256(repr(tests).encode())
    for name in tree_files(ROOT):
        digest.update(name.encode() + b"\0" + (ROOT / name).read_bytes())
    kept = ROOT / ".mutants" / f"{digest.hexdigest()[:16]}.json"
    if not kept.exists():
        print("first the tests themselves, under coverage", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, folder, *tests]
            subprocess.run(command, cwd=tree, env=environment(), check=True)
            kept.parent.mkdir(exist_ok=True)
            shutil.move(Path(folder) / "record.json", kept)
    return json.loads(kept.read_text())


def tests_of(file, lines, on_import, held):
    """The tests that execute lines of a file, the quick ones first: those of the module's own test
    file, and of the others as many as take MOST seconds together. on_import: of what a module does
    on import all tests that execute any of it, and all of its own file, which may read what it
    defines and execute nothing."""
    contexts = held["lines"].get(file, {})
    touched = {one for line in lines for one in contexts.get(str(line), [])}
    if touched and (on_import or not any(one.endswith(" (call)") for one in touched)):
        touched = set().union(*contexts.values())  # the setup of a fixture may serve many tests
    own = f"/test_{Path(file).stem}.py::"
    tests = {one.rpartition(" (")[0] for one in touched}
    if on_import:
        tests |= {test for test in held["seconds"] if own in test}
    tests -= {"", *held["failing"]}
    seconds = {test: held["seconds"].get(test, 1) for test in tests}
    kept = []
    total = 0
    for test in sorted(tests, key=lambda test: (seconds[test], test)):
        total += seconds[test]
        if own in test or total <= MOST:
            kept.append(test)
    return kept


def passes(tree, tests, limit):
    """Whether tests pass in a copy of the tree within so many seconds."""
    process = FORKED.Process(target=run, args=(tree, tests))
    process.start()
    process.join(limit)
    passed = process.exitcode == 0
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # with what its tests started
    process.join()
    return passed


def run(tree, tests):
    """Run tests in a copy of the tree and end this process with the exit code of pytest."""
    import pytest

    os.setsid()
    os.chdir(tree)
    os.environ |= environment()
    sys.dont_write_bytecode = True
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    try:
        # Plain assertions fail as others do, and their files need not be rewritten each time.
        code = pytest.main(["-x", "--assert=plain", "-p", "no:cacheprovider", *tests])
    except SystemExit:  # a fault that ends the process, whose own exit code may be 0
        code = 1
    sys.exit(code)


def environment():
    """No bytecode is kept: it would stand for any other source of its second and size."""
    return os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}


if __name__ == "__main__":
    record(Path(sys.argv[1]), sys.argv[2:])
