"""Profiles for Hypothesis: how many examples are drawn, and whether always the same.

`ci` always tries the same examples, `dev` looks for new ones, and `--hypothesis-profile=long` looks
for many; so does `deep`, with whole sessions (`tests/conformance/test_properties.py`).
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_SLOW_MACHINE = (HealthCheck.too_slow,)

settings.register_profile(
    "ci", derandomize=True, deadline=None, suppress_health_check=_SLOW_MACHINE
)
settings.register_profile("dev", deadline=None, suppress_health_check=_SLOW_MACHINE)
settings.register_profile(
    "long", max_examples=3000, deadline=None, suppress_health_check=_SLOW_MACHINE
)
settings.register_profile("deep", max_examples=1500, deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "dev")
