"""What postprox costs, as ratios, side by side in one run: `python3 -m benchmarks`.

Rule: what is compared is measured in turn (A B A B …) in the same run, on loopback, in processor
time with the wall clock beside it, and shown with its spread and its bar. A slow or busy machine
slows both sides; a timing never decides about an exit status.

`startup` to `profile` each answer one question; `clock` measures, `peers`, `upstream`, `copier`
and `relay` are what a proxy is measured between and beside; `figures`, `report`, `plots` and
`document` are how it is kept and shown. docs/performance.md says what is compared with what.
"""
