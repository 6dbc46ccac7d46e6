"""`make mutation`: change the verdict and promote code in every small way, and let the tests find out.

    python -m tests.mutation [--modules verdict,promote] [--keep DIRECTORY]

A copy of the tree is mutated, one change at a time, and the verifier's unit tests run against each. A change that
no test notices has survived; each survivor is listed in survivors.toml with the reason why it changes nothing that
matters. Ends with 1 when one is not, or when one that is listed has not survived.

Left out: changes of annotations and of dataclasses' options, which the type checker holds, and of the many ways to
replace an operator all but the nearest ones (`<` by `<=`, `==` by `!=`, `+` by `-`), since what finds those finds the
others. Nor are lines of the log left out: they are for people.
"""

from __future__ import annotations

import argparse
import ast
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkerOutcome, WorkResult

REPOSITORY = Path(__file__).parents[2]
PACKAGE = "services/verifier"
# Each module's tests; those of clones want file systems of their own, and so root.
UNIT, CLONES = "tests/unit/verifier", "tests/integration/verifier/test_clones.py"
MODULES = {
    **dict.fromkeys(("private_copy", "existing", "low_space", "verification", "incoming", "partial_rules"), UNIT),
    **dict.fromkeys(("copies", "verdict", "rejected", "promote", "beside"), UNIT),
    "cloned_copy": CLONES,
}
TEST_SECONDS = 90.0
Span = tuple[tuple[int, int], tuple[int, int]]
SURVIVORS = Path(__file__).with_name("survivors.toml")
_NEAREST = {
    *("Add_Sub", "Sub_Add", "Mul_FloorDiv", "FloorDiv_Mul", "Mod_Mul", "BitOr_BitAnd", "BitAnd_BitOr"),
    *("Eq_NotEq", "NotEq_Eq", "Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt", "Is_IsNot", "IsNot_Is", "In_NotIn", "NotIn_In"),
}


@dataclass(frozen=True, order=True)
class Change:
    """One place of a mutation: the module, the line as it stands there, what was done to it, and in which column."""

    module: str
    line: str
    operator: str
    column: int


@dataclass(frozen=True)
class Found:
    """What became of one module's changes."""

    changes: int
    alive: int
    survivors: set[Change]


def main() -> int:
    """Run; return 0 when every survivor is explained and every explanation is needed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", default=",".join(MODULES), help="some of them, separated by commas")
    parser.add_argument("--keep", type=Path, help="where to work, to go on there after an interruption")
    parser.add_argument("--jobs", type=int, default=2, help="modules at once, each in a tree of its own")
    arguments = parser.parse_args()
    modules = [name for name in arguments.modules.split(",") if name in MODULES]
    with tempfile.TemporaryDirectory(prefix="r3mes-mutation-") as temporary:
        place = arguments.keep or Path(temporary)
        with ThreadPoolExecutor(arguments.jobs) as pool:
            found = list(pool.map(lambda module: mutate(place / module, module), modules))
    return tell(found, modules)


def mutate(tree: Path, module: str) -> Found:
    """Try every change of one module in a copy of the tree; return how many there were, and which survived."""
    session = tree / "mutation.sqlite"
    if not session.exists():
        lay_out(tree, module)
        cosmic_ray(tree, "init", "mutation.toml", session.name)
        with use_db(session) as db:
            skip_what_says_nothing(db, tree)
    cosmic_ray(tree, "exec", "mutation.toml", session.name)
    with use_db(session) as db:
        results = {job: result for job, result in db.results if result.worker_outcome is not WorkerOutcome.SKIPPED}
        alive = {job for job, result in results.items() if result.test_outcome is TestOutcome.SURVIVED}
        survivors = {change_of(item.mutations[0], tree) for item in db.work_items if item.job_id in alive}
    print(f"{module}: {len(results)} changes, {len(alive)} survived", flush=True)
    return Found(len(results), len(alive), survivors)


def lay_out(tree: Path, module: str) -> None:
    """Copy what git knows of the tree, and write cosmic-ray's configuration."""
    tree.mkdir(parents=True, exist_ok=True)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, tree / name)
    test = f"{REPOSITORY / '.venv/bin/python'} -m pytest -x -q -p no:cacheprovider {MODULES[module]}"
    (tree / "mutation.toml").write_text(
        f'[cosmic-ray]\nmodule-path = ["{PACKAGE}/{module}.py"]\ntimeout = {TEST_SECONDS}\nexcluded-modules = []\n'
        f'test-command = "{test}"\n[cosmic-ray.distributor]\nname = "local"\n'
    )
    # An installed package, as far as Python's entry points know.
    marker = tree / "r3mes_mutation-1.dist-info"
    marker.mkdir()
    (marker / "METADATA").write_text("Metadata-Version: 2.1\nName: r3mes-mutation\nVersion: 1\n")
    (marker / "entry_points.txt").write_text(
        "[cosmic_ray.operator_providers]\nr3mes = tests.mutation.operators:Provider\n"
    )


def cosmic_ray(tree: Path, *arguments: str) -> None:
    """Run cosmic-ray in the tree, from this Python's environment."""
    command = [sys.executable, "-m", "cosmic_ray.cli", *arguments]
    subprocess.run(command, cwd=tree, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tree)}, check=True)


def skip_what_says_nothing(db: WorkDB, tree: Path) -> None:
    """Mark as skipped what is left alone, and the farther ones of the replacements of an operator."""
    alone: dict[Path, list[Span]] = {}
    for item in list(db.pending_work_items):
        (mutation,) = item.mutations
        path = tree / mutation.module_path
        spans = alone.setdefault(path, list(spans_left_alone(path)))
        inside = any(start <= mutation.start_pos and mutation.end_pos <= end for start, end in spans)
        kind, _, pair = mutation.operator_name.partition("Operator_")
        if inside or (kind.startswith("core/Replace") and pair and pair not in _NEAREST):
            db.set_result(item.job_id, WorkResult(output="says nothing", worker_outcome=WorkerOutcome.SKIPPED))


def spans_left_alone(path: Path) -> Iterator[Span]:
    """Yield where annotations, dataclasses' options, `assert_never` and lines of the log begin and end."""
    for node in ast.walk(ast.parse(path.read_text())):
        found = [getattr(node, name, None) for name in ("annotation", "returns")]
        found += [one for one in getattr(node, "decorator_list", ()) if "dataclass" in ast.unparse(one)]
        if isinstance(node, ast.Call) and re.match(r"assert_never$|log\.", ast.unparse(node.func)):
            found.append(node)
        for expression in found:
            if isinstance(expression, ast.expr):
                end = (expression.end_lineno or 0, expression.end_col_offset or 0)
                yield (expression.lineno, expression.col_offset), end


def tell(found: list[Found], modules: list[str]) -> int:
    """Print what survived and is not explained, and what is explained and did not survive."""
    changes, alive = sum(each.changes for each in found), sum(each.alive for each in found)
    survivors = set[Change]().union(*(each.survivors for each in found))
    document = tomllib.loads(SURVIVORS.read_text())
    explained = {
        Change(entry["module"], entry["line"], entry["operator"], entry["column"])
        for entry in document.get("survivor", [])
        if entry["module"] in modules
    }
    print(f"{changes} changes, {changes - alive} found by a test, {alive} survived")
    for change in sorted(survivors - explained):
        print(f"not explained: {change.module}.py  {change.line}  [{change.operator} {change.column}]")
    for change in sorted(explained - survivors):
        print(f"explained, but found: {change.module}.py  {change.line}  [{change.operator} {change.column}]")
    return int(survivors != explained)


def change_of(mutation: MutationSpec, tree: Path) -> Change:
    """Name a mutation by what stands there, so that lines above it may come and go."""
    text = (tree / mutation.module_path).read_text().splitlines()[mutation.start_pos[0] - 1]
    operator = mutation.operator_name.partition("/")[2]
    return Change(Path(mutation.module_path).stem, text.strip(), operator, mutation.start_pos[1])


if __name__ == "__main__":
    sys.exit(main())
