"""python3 -m tests.mutation: change the proxy in one small way at a time.

At least one test must fail for each change. The runner makes every change to the core, and a fixed
sample of the changes to the shell. A mutant is a survivor if no test fails. `survivors.toml` lists
the accepted survivors with their reasons. The run fails if it finds any other survivor, if a test
kills an accepted survivor of the core, or if the list contains a change that it does not make.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.mutation.mutants import Mutant, mutants
from tests.mutation.plugin import ROOT, SURVIVED

PACKAGE = ROOT / "postprox"
ACCEPTED = Path(__file__).with_name("survivors.toml")
SAMPLE, SEED = 300, 1

#: Modules that are not mutated. A limit that differs by one is as good as the original. The states
#: are names, apart from captions, and every session test exercises the transitions.
_LEFT_ALONE = ("limits.py", "states.py")

CORE_TESTS = (
    *("session_relay", "session_upstream", "session_idle", "session_data", "session_client_lost"),
    *("session_filter", "session_shutdown", "session_log", "session_properties"),
    *("smtp", "data", "verdict", "envelope", "upstream", "message", "options", "help_text"),
    *("actions", "replies", "limits", "states", "dialogue", "log_lines", "counters", "connector"),
)
SHELL_TESTS = (
    *("connection", "stream", "spool", "filter", "loop", "log", "system", "connector"),
    *("shell_edges", "stale_files", "metrics", "sd_notify", "main", "listen", "server"),
    *("stderr", "newfile"),
)


def main() -> int:
    """Test all mutants. Return 0 if the survivors are exactly the accepted survivors."""
    parser = argparse.ArgumentParser(prog="python3 -m tests.mutation", description=__doc__)
    parser.add_argument("part", nargs="?", choices=["core", "shell"], help="test only this part")
    parser.add_argument("--only", default="", help="test only files with this text in their name")
    parser.add_argument("--sample", type=int, default=SAMPLE, help="the number of shell mutants")
    # One in ten shell mutants waits until its time limit without using processor time.
    parser.add_argument("--workers", type=int, default=3 * len(os.sched_getaffinity(0)))
    wanted = parser.parse_args()
    passed = True
    for part in [wanted.part] if wanted.part else ["core", "shell"]:
        began = time.monotonic()
        tried = [m for m in mutants_of(part, wanted.sample) if wanted.only in m.file]
        survivors = survivors_of(tried, part, wanted.workers)
        whole = not wanted.only and wanted.sample == SAMPLE
        passed &= report(part, tried, survivors, whole=whole)
        print(f"{part}: {time.monotonic() - began:.0f} s", flush=True)
    return not passed


def mutants_of(part: str, sample: int) -> list[Mutant]:
    """Return all mutants of the core, or a sample of the shell's mutants."""
    values = dict(constants())
    found = [
        mutant
        for path in sorted((PACKAGE / part).glob("*.py"))
        if path.name not in _LEFT_ALONE
        for mutant in mutants(PACKAGE, str(path.relative_to(PACKAGE)), values)
    ]
    if part == "shell":
        found = sorted(found, key=_draw)[:sample]
    return found


def _draw(mutant: Mutant) -> bytes:
    """Return a pseudorandom sort key that depends only on the mutant."""
    return hashlib.sha256(repr((SEED, *mutant.key)).encode()).digest()


def constants() -> Iterator[tuple[str, dict[str, object]]]:
    """Yield the names of the modules with exchangeable constants, and these constants."""
    for name in ("actions", "log_levels", "limits", "upstream", "replies", "states", "verdict"):
        module = importlib.import_module(f"postprox.core.{name}")
        found = {key: value for key, value in vars(module).items() if key.isupper()}
        yield name, found
        yield name + "s", found  # the import name if a local variable is named like the module


def survivors_of(tried: list[Mutant], part: str, workers: int) -> list[Mutant]:
    """Test mutants in parallel. Return those for which no test fails."""
    names = CORE_TESTS if part == "core" else SHELL_TESTS
    tests = [f"tests/unit/test_{name}.py" for name in names]
    options = ["-o", "addopts=", "-s", "-p", "no:terminal", "-p", "no:xdist"]
    options += ["-p", "no:cacheprovider", "-p", "tests.mutation.plugin"]
    with tempfile.TemporaryDirectory(prefix="mutation-") as directory:
        todo, results = Path(directory, "todo"), Path(directory, "done")
        numbered = [vars(mutant) | {"number": number} for number, mutant in enumerate(tried)]
        todo.write_text("".join(json.dumps(mutant) + "\n" for mutant in numbered))
        results.touch()
        given = {"MUTANTS": str(todo), "RESULTS": str(results), "WORKERS": str(workers)}
        command = [sys.executable, "-m", "pytest", *options, *tests]
        ended = subprocess.run(command, cwd=ROOT, env=dict(os.environ) | given, check=False)
        if ended.returncode not in (0, 5):
            raise SystemExit(f"pytest failed with status {ended.returncode}")
        verdicts: dict[int, str] = dict(map(json.loads, results.read_text().splitlines()))
    return [mutant for number, mutant in enumerate(tried) if verdicts[number] == SURVIVED]


def accepted() -> dict[tuple[str, str, str, str], str]:
    """Return the accepted survivors with their reasons."""
    entries = tomllib.loads(ACCEPTED.read_text()).get("survivor", [])
    return {(e["file"], e["function"], e["was"], e["becomes"]): e["reason"] for e in entries}


def report(part: str, tried: list[Mutant], survivors: list[Mutant], *, whole: bool) -> bool:
    """Print unaccepted survivors and stale entries. Return whether there are none."""
    known = {key for key in accepted() if key[0].startswith(part)}
    new = [mutant for mutant in survivors if mutant.key not in known]
    # A random failure of a shell test must not count as a stale entry.
    expected = {mutant.key for mutant in (survivors if part == "core" else tried)}
    stale = [key for key in known if key not in expected] if whole else []
    for mutant in new:
        print(_as_entry(mutant.key))
    for key in stale:
        print(f"# accepted, but a test detects the change or it does not exist:\n{_as_entry(key)}")
    listed = Counter(m.key in known for m in survivors)[True]
    share = 100 * (len(tried) - len(survivors)) / max(1, len(tried) - listed)
    print(
        f"{part}: {len(tried)} mutants, {len(survivors)} survived, {listed} of them accepted;"
        f" killed of the others: {share:.1f} %"
    )
    return not new and not stale


def _as_entry(key: tuple[str, str, str, str]) -> str:
    names = ("file", "function", "was", "becomes")
    lines = [f"{name} = {json.dumps(value)}" for name, value in zip(names, key, strict=True)]
    return "\n".join(["[[survivor]]", *lines, 'reason = ""', ""])


if __name__ == "__main__":
    sys.exit(main())
