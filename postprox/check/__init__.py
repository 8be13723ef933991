"""`postprox-check`: whether Postfix's configuration and the proxy's fit together.

Rule: `machine.py` looks, and decides nothing; `postconf.py` and `unit.py` read what it saw;
`paths.py` and `case.py` find what is connected to what; `alone.py` and `among.py` are the rules,
which `judge.py` applies; `findings.py` has names and levels, `remedies.py` the lines to write, and
`report.py` the words.
"""
