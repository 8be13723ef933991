"""python3 -m tests.faults: run all scenarios, a sample, or the scenarios with the given names.

With `--all`, the command also reports each fault in doubtful.txt that no longer leaves a message in
doubt.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.faults.run import Account, doubtful, run
from tests.faults.scenario import every_scenario, sample


def main() -> int:
    """Run the selected scenarios. Return exit status 0 if all guarantees hold."""
    parser = argparse.ArgumentParser(prog="python3 -m tests.faults", description=__doc__)
    parser.add_argument("name", nargs="*", help="a scenario, or a prefix of scenario names")
    parser.add_argument("--all", action="store_true", help="run all scenarios")
    parser.add_argument("--sample", type=int, default=500, metavar="N")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=12, metavar="N")
    wanted = parser.parse_args()
    if wanted.name:
        chosen = [s for s in every_scenario() if s.name.startswith(tuple(wanted.name))]
    else:
        chosen = list(every_scenario()) if wanted.all else sample(wanted.sample, wanted.seed)
    began = time.monotonic()
    account = run(chosen, wanted.at_once)
    report(account)
    print(f"{account}; {time.monotonic() - began:.0f} s")
    stale = wanted.all and [
        f for f, why in doubtful().items() if f not in account.doubts and "sometimes" not in why
    ]
    for fault in stale or ():
        print(f"no longer in doubt, remove from doubtful.txt: {fault}")
    return bool(account.violations or account.unforeseen or stale or not chosen)


def report(account: Account) -> None:
    """Print the violations and the messages in doubt."""
    for violation in account.violations:
        print(f"VIOLATED {violation}")
    for fault, count in sorted(account.doubts.items()):
        listed = "" if fault not in account.unforeseen else "  NOT LISTED"
        print(f"in doubt {fault} ({count}){listed}")


if __name__ == "__main__":
    sys.exit(main())
