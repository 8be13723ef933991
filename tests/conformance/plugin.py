"""The name under which users load the pytest plugin: ``-p postprox_conformance.plugin``.

Rule: this module only names the plugin. Its hooks are in run/plugin.py.
"""

from __future__ import annotations

pytest_plugins = [f"{__package__}.run.plugin"]
