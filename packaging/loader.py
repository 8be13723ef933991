"""Put modules in place that the launcher has read from one file, in the order of the file.

Rule: of what an import sets, everything that the proxy or a traceback looks at is set here too.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import CodeType

_Module, _Spec = type(sys), type(sys.__spec__)


def load(modules: Iterable[tuple[str, CodeType]], *places: str) -> None:
    """Execute the code of `modules`; what a package has besides is looked for in `places`."""
    for name, code in modules:
        module = _Module(name)
        spec = _Spec(name, None, origin=code.co_filename)
        if code.co_filename.endswith("/__init__.py"):
            spec.submodule_search_locations = [f"{p}/{name.replace('.', '/')}" for p in places]
            module.__path__ = spec.submodule_search_locations
        module.__spec__ = spec
        module.__package__ = spec.parent
        module.__file__ = code.co_filename
        sys.modules[name] = module
        if "." in name:
            parent, _, child = name.rpartition(".")
            setattr(sys.modules[parent], child, module)
        exec(code, module.__dict__)
