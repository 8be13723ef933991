"""`postprox-check`, which checks that Postfix and its proxies are configured consistently.

Rule: each module has one task.

- `probe/` reads files and runs `access.py` to test another user's permissions. `machine.py` reads
  the state of the running system, and `running.py` converts this state to facts.
- `postconf.py`, `values.py` and `unit.py` parse the input.
- `scripts/` parses the filter command and finds mistakes in the filter's script.
- `selection.py`, `routes.py`, `tables.py` and `setup.py` find the proxies and the routes that mail
  takes through them.
- The modules `*_rules.py`, `sandbox.py` and `parameters.py` contain the rules. `rules.py` applies
  all rules.
- `sample_runs.py` runs the filters on test messages. `mail_log.py` finds errors in the mail log.
- `findings.py` defines the names and levels of findings. `fixes.py` creates the commands that
  correct problems.
- `report.py` formats the report.
"""
