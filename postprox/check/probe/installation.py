"""Finds the installed package and the configuration files that affect mail processing.

Rule: this module only reads data and makes no decisions.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from ..facts import ProxyFacts
from ..postconf import Configuration, UnreadableError
from ..routes import Proxy
from . import postconf_command, system


def configuration_files(
    configuration: Configuration, facts: Mapping[Proxy, ProxyFacts]
) -> list[str]:
    """Return the files and directories that determine what happens to mail."""
    paths = [configuration.directory or postconf_command.default_directory()]
    paths += ["/etc/aliases", "/etc/aliases.db", "/etc/group", "/etc/passwd"]
    for proxy, seen in facts.items():
        paths += [seen.filter.path] if seen.filter else []
        if unit := proxy.unit:
            paths += [unit.path, unit.drop_ins, unit.options_file]
    return [path for path in paths if path]


def examples() -> str:
    """Return the directory that contains the Postfix recipe."""
    places = [
        *("/usr/share/doc/postprox", "/usr/local/share/doc/postprox"),
        *(f"{sys.prefix}/share/doc/postprox", str(Path(__file__).parents[3])),
    ]
    found = [place for place in places if Path(place, "examples/postfix").is_dir()]
    return f"{[*found, places[1]][0]}/examples/postfix"


def example_texts() -> dict[str, str]:
    """Return the text of each recipe file, indexed by file name.

    Raises:
        UnreadableError: the files are missing.
    """
    directory = Path(examples())
    found = {path.name: system.read_text(path) for path in directory.glob("*.cf")}
    if not found:
        raise UnreadableError(f"{directory} is missing; install postprox again")
    return found


def installed_program() -> str:
    """Return the path of the installed proxy."""
    found = shutil.which("postprox", path=f"{system.SYSTEMD_PATH}:{sys.prefix}/bin")
    return found or "/usr/local/sbin/postprox"


def public_program() -> str:
    """Return the path of the proxy in a system directory, or "" if there is none."""
    return shutil.which("postprox", path=system.SYSTEMD_PATH) or ""
