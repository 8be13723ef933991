"""Benchmarks of postprox, which report ratios measured side by side (`python3 -m benchmarks`).

Rule: programs are compared by alternating measurements (A B A B …) in the same run, on loopback.
Results are processor times with elapsed times, and have a range and a limit. A slow or busy machine
affects both sides equally. No exit status depends on a timing.

Each of the modules from `startup` to `profile` answers one question. `clock` measures times.
`peers`, `sender`, `upstream`, `copier`, `relay` and `milter` are the programs used in a
measurement. `ways` lists the ways to filter mail that `whole_path` compares. `figures`, `report`,
`plots` and `document` store and present the results. docs/performance-internals.md explains the
comparisons.
"""
