"""Commands and lines that change the configuration of Postfix or of a unit.

Rule: text only. Nothing is executed. Each command can be pasted into a shell.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from ..core.options import Options, UsageError, parse
from .postconf import Configuration, Service, join_words
from .routes import Proxy, arguments


def set_main(configuration: Configuration, name: str, value: str) -> str:
    """Set a parameter in main.cf."""
    return f"{configuration.postconf} -e {shlex.quote(f'{name}={value}')}"


def set_own(configuration: Configuration, service: Service, name: str, value: str) -> str:
    """Set a parameter of one service in master.cf."""
    return f"{configuration.postconf} -P {shlex.quote(f'{service.label}/{name}={value}')}"


def set_field(configuration: Configuration, service: Service, name: str, value: str) -> str:
    """Set a column of one service in master.cf."""
    return f"{configuration.postconf} -F {shlex.quote(f'{service.label}/{name}={value}')}"


def add_arguments(configuration: Configuration, proxy: Proxy, *more: str) -> str:
    """Insert arguments before those of the proxy."""
    return _set_command(configuration, proxy, [*more, *arguments(proxy.words)])


def set_directory(configuration: Configuration, proxy: Proxy, wanted: Options, value: str) -> str:
    """Set the directory for messages. Replace `-d` if present, because the last one wins."""
    old = wanted.directory
    words = arguments(proxy.words)
    # The mark in the parsed directory shows the argument to replace, in any spelling of -d.
    marked = [
        f"{word.removesuffix(old)}{old}/{index}" if word.endswith(old) else word
        for index, word in enumerate(words)
    ]
    try:
        directory = parse(marked).directory
    except UsageError:
        directory = old
    if directory == old:
        return add_arguments(configuration, proxy, "-d", value)
    index = int(directory.rpartition("/")[2])
    new = words[index].removesuffix(old) + value
    return _set_command(configuration, proxy, [*words[:index], new, *words[index + 1 :]])


def _set_command(configuration: Configuration, proxy: Proxy, more: Sequence[str]) -> str:
    program = len(proxy.words) - len(arguments(proxy.words))
    words = (*proxy.words[:program], *more)
    if proxy.service is None:
        return f"ExecStart={shlex.join(words)}"
    command = proxy.service.words
    start = next(index for index, word in enumerate(command) if word.startswith("argv="))
    whole = (*command[:start], f"argv={words[0]}", *words[1:])
    return set_field(configuration, proxy.service, "command", join_words(whole))


def set_user(configuration: Configuration, service: Service, user: str) -> str:
    """Set the user of a command of spawn(8)."""
    program, *others = (word for word in service.words if not word.startswith("user="))
    words = (program, f"user={user}", *others)
    return set_field(configuration, service, "command", join_words(words))


def set_program(configuration: Configuration, service: Service, program: str) -> str:
    """Set the program of Postfix that serves mail for a service."""
    words = (program, *service.words[1:])
    return set_field(configuration, service, "command", join_words(words))


def add_user(user: str) -> str:
    """Create a user and a group for the proxy. A number is the id of the user."""
    is_number = re.fullmatch("[0-9]+", user)
    return (
        "useradd --system --user-group --no-create-home --home-dir /nonexistent "
        f"--shell /usr/sbin/nologin {f'--uid {user} postprox' if is_number else shlex.quote(user)}"
    )


def make_spool(user: str, directory: str) -> str:
    """Create a directory for messages."""
    name = shlex.quote(user or "postprox")
    return f"install -d -o {name} -g {name} -m 0700 {shlex.quote(directory)}"
