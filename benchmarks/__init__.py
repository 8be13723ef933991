"""What postprox costs, as ratios, side by side in one run: `python3 -m benchmarks`.

Rule: what is compared is measured in turn (A B A B …) in the same run, on loopback, and shown with
its spread and the bound that it is to keep. A slow or busy machine slows both sides; a timing never
decides about an exit status. docs/performance.md says what is compared with what.
"""
