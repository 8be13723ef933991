"""A profile for Hypothesis: ``--hypothesis-profile=deep`` looks for long (`test_properties`)."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("deep", max_examples=1500, deadline=None)
