"""Mutation testing: small faults in the product, one at a time, and how many a test notices.

    python tests/mutants.py [--sample N] [--seed S] [--only FILE ...] [--tests FILE ...] [--jobs N]

A first pass runs the tests under coverage and keeps in .mutants/ which test executes which line and
how long it takes; the next call on the same tree takes it from there. Each mutant is one change on
one line, in a copy of the tree, where tests that execute the line run: those of the module's own
file and the quickest others, a minute of them. What is done on import is executed by all of the
module and by all tests of its own file.
"""

import argparse
import ast
import collections
import concurrent.futures
import dataclasses
import os
import queue
import random
import tempfile
import time
from pathlib import Path

import executed
from executed import ROOT

# Calls whose arguments are words.
MESSAGES = {"info", "warning", "error", "say", "UserError", "flag"}
# Keywords whose values nothing observes, unless another line is wrong.
WORDS = {"help", "description", "epilog", "metavar", "about", "frozen", "eq", "strict"}
OPPOSITES = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Add, ast.Pow: ast.Mult, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
STARTING = 60  # seconds that a process may take beside its tests
MULTIPLE = 5  # of the tests' own time that they may take


@dataclasses.dataclass(frozen=True)
class Mutant:
    file: str
    line: int
    before: str  # the changed lines as one
    after: str
    source: bytes | None  # of the whole file, changed; None: as it is
    lines: tuple  # the lines of its statement
    on_import: bool  # whether the statement is outside every function


def left_out(node):
    """Whether nothing within a node is changed: messages, and formatted strings."""
    if isinstance(node, ast.Call):
        return getattr(node.func, "attr", getattr(node.func, "id", "")) in MESSAGES
    is_words = isinstance(node, ast.keyword) and node.arg in WORDS
    return is_words or isinstance(node, ast.Raise | ast.JoinedStr)


def changed(node, **fields):
    """A copy of a node with other fields, as source."""
    text = ast.unparse(type(node)(**vars(node) | fields))
    return text if isinstance(node, (ast.stmt, ast.Slice)) else f"({text})"


def changes(node):
    """The sources that may stand in place of a node."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in OPPOSITES:
        yield changed(node, ops=[OPPOSITES[type(node.ops[0])](), *node.ops[1:]])
    if isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp) and type(node.op) in OPPOSITES:
        yield changed(node, op=OPPOSITES[type(node.op)]())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield f"({ast.unparse(node.operand)})"
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield str(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield repr(node.value + 1 if isinstance(node.value, int) else 2 * node.value or 1.0)
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "pass"
    if isinstance(node, ast.Call):
        for keyword in node.keywords:
            if keyword.arg and keyword.arg not in WORDS:
                yield changed(node, keywords=[one for one in node.keywords if one is not keyword])
    if isinstance(node, ast.Slice):
        one = ast.Constant(1)
        if node.lower:
            yield changed(node, lower=ast.BinOp(node.lower, ast.Add(), one))
        if node.upper:
            yield changed(node, upper=ast.BinOp(node.upper, ast.Sub(), one))


def mutants_of(file):
    """Every mutant of a file."""
    source = (ROOT / file).read_bytes()
    rows = source.splitlines(keepends=True)
    starts = [sum(map(len, rows[:n])) for n in range(len(rows) + 1)]
    found = []

    def edit(node, text, statement, inside):
        first, last = starts[node.lineno - 1], starts[node.end_lineno]
        begin, end = first + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
        other = source[:begin] + text.encode() + source[end:]
        before, after = source[first:last], source[first:begin] + text.encode() + source[end:last]
        shown = [" ".join(part.decode().split()) for part in (before, after)]
        body = getattr(statement, "body", None)
        stop = body[0].lineno if body else statement.end_lineno + 1
        lines = tuple(range(statement.lineno, stop))
        found.append(Mutant(file, node.lineno, *shown, other, lines, not inside))

    def visit(node, statement, inside):
        if left_out(node) or (isinstance(node, ast.Expr) and left_out(node.value)):
            return
        statement = node if isinstance(node, ast.stmt) else statement
        if hasattr(node, "lineno"):
            for text in changes(node):
                edit(node, text, statement, inside)
        if isinstance(node, ast.If | ast.While | ast.IfExp):
            edit(node.test, f"(not ({ast.unparse(node.test)}))", statement, inside)
        for name, value in ast.iter_fields(node):
            within = inside or (name == "body" and isinstance(node, ast.FunctionDef | ast.Lambda))
            if name not in ("annotation", "returns"):
                for child in value if isinstance(value, list) else [value]:
                    if isinstance(child, ast.AST):
                        visit(child, statement, within)

    visit(ast.parse(source), None, False)
    return found


def survives(mutant, trees, held):
    """Whether tests pass in a copy of the tree that holds a mutant."""
    tests = executed.tests_of(mutant.file, mutant.lines, mutant.on_import, held)
    limit = STARTING + MULTIPLE * sum(held["seconds"].get(test, 1) for test in tests)
    tree = trees.get()
    original = (tree / mutant.file).read_bytes()
    (tree / mutant.file).write_bytes(mutant.source or original)
    survived = executed.passes(tree, tests, limit)
    (tree / mutant.file).write_bytes(original)
    trees.put(tree)
    return survived


def sampled(args, held):
    """Mutants of so many lines that tests execute, one for each."""
    by_line = collections.defaultdict(list)
    for file in sorted(args.only or held["lines"]):
        for mutant in mutants_of(file):
            if executed.tests_of(file, mutant.lines, mutant.on_import, held):
                by_line[file, mutant.line].append(mutant)
    rng = random.Random(args.seed)
    chosen = rng.sample(sorted(by_line), min(args.sample, len(by_line)))
    print(f"{len(chosen)} of {len(by_line)} lines, seed {args.seed}", flush=True)
    return [rng.choice(by_line[place]) for place in chosen]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sample", type=int, default=200, help="how many mutants")
    clock = time.time_ns() % 10**6
    parser.add_argument("--seed", type=int, default=clock, help="default: by the clock")
    parser.add_argument("--only", nargs="+", default=[], metavar="FILE", help="mutate these files")
    parser.add_argument("--tests", nargs="+", default=[], metavar="FILE", help="run these tests")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="mutants at a time")
    args = parser.parse_args()
    start = time.perf_counter()
    trees = queue.Queue()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.jobs):
            executed.copy_tree(Path(folder, str(number)))
            trees.put(Path(folder, str(number)))
        held = executed.by_test(trees.queue[0], args.tests)
        if held["failing"]:
            print("left out, fail without a fault:", *held["failing"], sep="\n  ")
        mutants = sampled(args, held)
        unchanged = [dataclasses.replace(one, source=None) for one in mutants[:1]]
        if not all(survives(one, trees, held) for one in unchanged):
            raise SystemExit("a mutant that changes nothing does not survive")
        survivors = 0
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            results = pool.map(lambda mutant: survives(mutant, trees, held), mutants)
            for one, survived in zip(mutants, results, strict=True):
                if survived:
                    survivors += 1
                    print(f"{one.file}:{one.line}\n  - {one.before}\n  + {one.after}", flush=True)
    noticed = len(mutants) - survivors
    score = f"{noticed} of {len(mutants)} noticed, {noticed / max(1, len(mutants)):.1%}"
    print(f"{score}, {time.perf_counter() - start:,.0f} s")


if __name__ == "__main__":
    main()
