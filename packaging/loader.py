"""The loader of modules that the launcher has read from one file.

Rule: the loader sets all attributes of a module that the proxy or a traceback uses. It imports only
modules that the interpreter has already loaded, so not even `__future__`.
"""

import marshal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType

_Module, _Spec = type(sys), type(sys.__spec__)


def load(modules: "Iterable[tuple[str, CodeType]]", *places: str) -> None:
    """Execute the code of `modules`; set `places` as the directories of the packages."""
    for name, code in modules:
        module = _Module(name)
        spec = _Spec(name, None, origin=code.co_filename)
        if code.co_filename.endswith("/__init__.py"):
            spec.submodule_search_locations = [f"{p}/{name.replace('.', '/')}" for p in places]
            module.__path__ = spec.submodule_search_locations
        # CPython 3.11 formats an error on each later import if this attribute is missing.
        spec._initializing = False  # type: ignore[attr-defined]
        module.__spec__ = spec
        module.__package__ = spec.parent
        module.__file__ = code.co_filename
        sys.modules[name] = module
        if "." in name:
            parent, _, child = name.rpartition(".")
            setattr(sys.modules[parent], child, module)
        exec(code, module.__dict__)


class Later:
    """A finder for modules that few sessions need. The first import loads all of them.

    names: the names of the modules, in the order of `packed`, their code from `marshal`.
    """

    def __init__(self, names: list[str], packed: bytes, *places: str) -> None:
        self._names = names
        self._packed = packed
        self._places = places

    def find_spec(self, name: str, *_: object) -> "ModuleSpec | None":
        """Load all modules if `name` is one of them."""
        if name not in self._names:
            return None
        sys.meta_path.remove(self)
        try:
            load(marshal.loads(self._packed), *self._places)
            spec = sys.modules[name].__spec__
        except Exception:
            # A module that is loaded in part must not stay: the finders behind this one load it.
            for loaded in self._names:
                sys.modules.pop(loaded, None)
            return None
        if spec is not None:
            spec.loader = self  # type: ignore[assignment]
        return spec

    def create_module(self, spec: "ModuleSpec") -> "ModuleType":
        """Return the module, which `find_spec` has loaded."""
        return sys.modules[spec.name]

    def exec_module(self, module: "ModuleType") -> None:
        """Do nothing, because `find_spec` has executed the module."""
