"""Collects the system data that the rules require.

Rule: the modules only read data and make no decisions. They open only regular files.

- `postfix.py`, `postconf_command.py` and `postfix_files.py` read the configuration of Postfix.
- `units.py` reads the units of systemd.
- `proxy_facts.py` collects the facts about a proxy. `programs.py`, `script_files.py` and
  `written_files.py` read its filter, and `spool.py` reads its directories.
- `accounts.py` reads users and tests their permissions.
- `installation.py` finds the files of the package.
"""
