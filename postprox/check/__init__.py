"""`postprox-check`: whether Postfix's configuration and the proxy's fit together.

Rule: one task for each module.

- `probe.py` reads the system. It runs `access.py` as a program for another user.
- `postconf.py`, `values.py` and `unit.py` parse what was read.
- `routes.py` and `setup.py` find what is connected to what.
- `proxy_rules.py`, `postfix_rules.py` and `parameters.py` are the rules. `rules.py` applies them.
- `findings.py` has names and levels, `fixes.py` the lines to write, `report.py` the words.
"""
