"""`postprox-check`: whether Postfix's configuration and the proxy's fit together.

Rule: `machine.py` looks, and decides nothing; `access.py` is a program that it runs for another
user; `postconf.py`, `values.py` and `unit.py` read what it saw; `paths.py` and `case.py` find what
is connected to what; `alone.py`, `among.py` and `parameters.py` are the rules, which `judge.py`
applies; `findings.py` has names and levels, `remedies.py` the lines to write, and `report.py` the
words.
"""
