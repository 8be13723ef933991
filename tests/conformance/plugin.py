"""The pytest plugin, under the name by which users load it (``-p postprox_conformance.plugin``).

Rule: this module only provides the name. The hooks are in run/plugin.py.
"""

from __future__ import annotations

pytest_plugins = [f"{__package__}.run.plugin"]
