"""Tests that the files in packaging/container/ match docs/containers.md."""

from __future__ import annotations

import math
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from postprox.core import limits, options
from tests.support.accounts import skip_if_passed_as_user
from tests.support.peers import listening

from .containerfile import (
    APPLIED,
    COMPOSE,
    CONTAINER,
    ROOT,
    UNTRIED,
    Service,
    Stage,
    Step,
    parse,
    services,
)
from .page import DERIVED, PAGE, block, commands, section

FOUND = services(COMPOSE.read_text())
*_, IMAGE = parse((CONTAINER / "Containerfile").read_text()).values()
OVERRIDE = services(block("yaml", "beside the `compose.yaml` of docker-mailserver:"))["proxy"]
TOP = ROOT.joinpath("docs/operating.md").read_text()
FILES = sorted(path.name for path in CONTAINER.iterdir())


@pytest.fixture(autouse=True)
def _any_account() -> None:
    skip_if_passed_as_user()


@pytest.mark.parametrize("name", FILES)
def test_containers_page_links_to_each_file(name: str) -> None:
    assert f"(../packaging/container/{name})" in PAGE


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith("Containerfile")])
def test_files_copied_by_containerfile_exist(name: str) -> None:
    for stage in parse((CONTAINER / name).read_text()).values():
        for step in stage.steps:
            if step.kind == "COPY" and not step.source:
                for source in step.words[:-1]:
                    assert (ROOT / source).exists(), source


def test_filter_copied_by_derived_image_is_executable() -> None:
    (copied,) = (step for step in parse(DERIVED)[""].steps if step.kind == "COPY")
    assert (ROOT / copied.words[0]).stat().st_mode & 0o111


def test_documented_build_commands_use_existing_containerfile() -> None:
    printed = [line for line in re.findall(r"(?m)^    (.*)$", PAGE) if " build " in line]
    assert len(printed) == 2
    for command in printed:
        words = shlex.split(command)
        assert (ROOT / words[words.index("-f") + 1]).is_file()
        assert f"#   {command}\n" in (CONTAINER / "Containerfile").read_text()
    assert "--format docker" in printed[0]


def test_compose_command_refers_to_existing_file() -> None:
    (command,) = re.findall(r"(?m)^    (docker compose -f .*)$", PAGE)
    assert ROOT / shlex.split(command)[3] == COMPOSE
    assert f"#   {command}\n" in COMPOSE.read_text()


def test_image_command_line_is_valid() -> None:
    program, *arguments = IMAGE.entrypoint
    assert program == "/usr/local/sbin/postprox"
    parsed = options.parse([*arguments, *IMAGE.command])
    assert parsed.listen == ("127.0.0.1", 10025)
    assert (parsed.foreground, parsed.log, parsed.strict) == (True, "stderr", True)
    assert parsed.directory == "/var/spool/postprox"
    assert parsed.metrics == "/run/postprox/postprox.prom"


@pytest.mark.parametrize("service", [FOUND["proxy"], OVERRIDE], ids=["example", "mailserver"])
def test_compose_service_restricts_privileges_of_proxy(service: Service) -> None:
    settings = service.settings
    assert settings["read_only"]
    assert settings["cap_drop"] == ["ALL"]
    assert settings["security_opt"] == ["no-new-privileges:true"]
    assert service.seconds("stop_grace_period", 10) > limits.STOP_GRACE
    for mount in service.tmpfs.values():
        # podman does not support uid=.
        assert {"mode=1777", "nosuid", "nodev", "noexec"} <= set(mount.split(","))


def test_spool_size_follows_documented_formula() -> None:
    arguments = FOUND["proxy"].settings["command"]
    sessions = options.parse([*IMAGE.entrypoint[1:], *arguments]).max_sessions
    assert f"With {sessions} sessions" in PAGE
    octets = 3 * 10_240_000 * sessions
    megabytes = math.ceil(octets / 2**20)
    assert f"{octets:,}".replace(",", " ") + f" octets, or {megabytes} MB" in PAGE
    (size,) = re.findall(r"size=(\d+)m", FOUND["proxy"].tmpfs["/var/spool/postprox"])
    assert int(size) * 2**20 >= octets
    assert f"`compose.yaml` has `size={size}m`" in PAGE
    assert "three times `message_size_limit` for each concurrent filter" in TOP


def test_containers_page_lists_untested_settings() -> None:
    _, _, untested = section("What was tested").partition("**not tested**")
    for name in ("docker", "Compose", "ports", "restart policies", "memory limits"):
        assert name in untested
    assert not APPLIED & UNTRIED


def test_supervisor_command_lines_are_valid() -> None:
    text = re.sub(r" ?\\?\n    ", " ", section("runit, s6 and supervisord"))
    printed = re.findall(r"(?m)/usr/local/sbin/postprox (.*)$", text)
    assert len(set(printed)) == 1
    assert len(printed) == 3
    assert options.parse(shlex.split(printed[0])).foreground


@pytest.mark.parametrize("pattern", [r"stopwaitsecs=(\d+)", r"sv -w (\d+) ", r"-t (\d+)`, or"])
def test_documented_stop_timeouts_exceed_grace_period(pattern: str) -> None:
    (seconds,) = re.findall(pattern, PAGE)
    assert int(seconds) > limits.STOP_GRACE


def test_health_check_uses_port_argument() -> None:
    assert re.search(r"`postprox-health \d+`", PAGE)
    with listening() as listener:
        port = str(listener.getsockname()[1])
        health = [sys.executable, "-ISB", str(CONTAINER / "health")]
        checked = subprocess.Popen([*health, port], stdout=subprocess.PIPE, text=True)
        client, _ = listener.accept()
        with client:
            client.sendall(b"220 up\r\n")
            assert client.recv(100) == b"QUIT\r\n"
            client.sendall(b"221 bye\r\n")
        printed, _ = checked.communicate(timeout=10)
        assert printed == "220 up\n"
        assert checked.returncode == 0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("FROM a\nADD b c\n", "unknown instruction ADD"),
        ("FROM a\nCOPY --chown=1 b c\n", "unknown option in COPY --chown=1 b c"),
    ],
)
def test_unknown_containerfile_instruction_is_an_error(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse(text)


def test_continued_lines_form_one_instruction() -> None:
    stages = parse("# x\nFROM a AS b\nRUN c \\\n    && d\nFROM b\nCOPY --from=b e f\n")
    assert stages["b"] == Stage("a", [Step("RUN", ("c && d",))])
    assert stages[""].steps == [Step("COPY", ("e", "f"), "b")]


def test_unknown_service_key_is_an_error() -> None:
    with pytest.raises(ValueError, match="privileged"):
        services("services: {a: {privileged: true}}")


def test_containers_page_contains_supervisor_commands() -> None:
    assert [command.split()[0] for command in commands("runit, s6 and supervisord")] == [
        *("sv", "s6-svc", "supervisorctl")
    ]


def test_containers_page_appears_in_navigation() -> None:
    assert "docs/containers.md\n" in Path(ROOT / "mkdocs.yml").read_text()
