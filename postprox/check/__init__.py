"""`postprox-check`, which compares the configuration of Postfix with that of its proxies.

Rule: one task for each module.

- `probe.py` reads the system. It runs `access.py` to test the permissions of another user.
- `postconf.py`, `values.py` and `unit.py` parse its input.
- `routes.py` and `setup.py` find the route of mail between services and proxies.
- `proxy_rules.py`, `postfix_rules.py` and `parameters.py` are the rules. `rules.py` applies them.
- `findings.py` has names and levels, `fixes.py` has the lines to write.
- `report.py` formats the report.
"""
