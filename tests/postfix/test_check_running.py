"""postprox-check with a running Postfix: it accepts the recipe and checks ports and processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from . import readme
from .instance import Postfix, public_directory
from .proxies import Installation
from .recipe import AFTER, BEFORE, NAMES, SPAWNED, master_cf, own_names, own_places, renamed
from .signer import running_signer

pytestmark = pytest.mark.usefixtures("needs_postfix")

CHECK = [sys.executable, "-m", "postprox.check"]
FILTER = "#!/bin/sh\nexit 0\n"


@dataclass(frozen=True)
class Running:
    """A running Postfix with the recipe."""

    postfix: Postfix

    def check(self, *arguments: str) -> tuple[int, str]:
        """Run the command. Return its exit status and its output on one line."""
        done = subprocess.run(
            [*CHECK, "--config", f"{self.postfix.directory}/etc", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, " ".join((done.stdout + done.stderr).split())

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace text in a configuration file."""
        path = self.postfix.directory / "etc" / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        os.utime(self.postfix.directory / "etc/main.cf", (0, 0))


@pytest.fixture(params=[BEFORE, AFTER])
def running(needs_postfix: None, request: pytest.FixtureRequest) -> Iterator[Running]:
    mode = request.param
    with public_directory("postprox-running-") as directory:
        installation = Installation(directory)
        mail_filter = installation.executable("mail-filter", FILTER)
        names = own_names(installation.launcher, mail_filter, installation.spool)
        # Postfix ends only after all processes in its own directory.
        with (
            Postfix(
                directory,
                NAMES,
                lambda addresses: (
                    f"{addresses['smtp']} inet n - n - - smtpd\n"
                    + renamed(master_cf(mode, SPAWNED), names | own_places(addresses))
                ),
                lambda addresses: renamed(readme.main_cf(mode), names | own_places(addresses)),
            ) as postfix,
            public_directory("postprox-signer-") as other,
            running_signer(other, postfix.addresses["signer"]),
        ):
            yield Running(postfix)


def test_missing_milter_is_reported(running: Running) -> None:
    signer = str(running.postfix.addresses["signer"])
    with socket.create_server((signer.partition(":")[0], 0)) as free:
        missing = f"{signer.partition(':')[0]}:{free.getsockname()[1]}"
    running.edit("master.cf", f"inet:{signer}", f"inet:{missing}")
    status, text = running.check()
    assert (status, f"the milter inet:{missing}" in text) == (2, True)
    assert text.endswith("[no-milter] ss -ltn")


def test_running_system_based_on_recipe_has_no_findings(running: Running) -> None:
    assert running.check() == (0, "")
    assert "data=" not in running.postfix.log()
    assert "lost connection" not in running.postfix.log()


@pytest.mark.parametrize("running", [BEFORE], indirect=True)
def test_service_not_yet_loaded_by_postfix_is_reported(running: Running) -> None:
    proxy = str(running.postfix.addresses["proxy"])
    with socket.create_server((running.postfix.addresses["proxy"].host, 0)) as free:
        port = free.getsockname()[1]
    other = f"{running.postfix.addresses['proxy'].host}:{port}"
    running.edit("master.cf", f"{proxy} inet", f"{other} inet")
    running.edit("main.cf", proxy, other)
    status, text = running.check()
    assert (status, "[no-greeting]" in text, "'connection refused'" in text) == (2, True, True)
    assert text.endswith(f"postfix -c {running.postfix.directory}/etc reload")
    assert running.check("--offline") == (0, "")
    running.postfix.reload()
    running.postfix.wait_log("reload -- version")
    assert running.check() == (0, "")


@pytest.mark.parametrize("running", [BEFORE], indirect=True)
def test_another_program_on_proxy_port_is_reported(running: Running) -> None:
    proxy = running.postfix.addresses["proxy"]
    with socket.create_server((proxy.host, 0)) as foreign:
        port = foreign.getsockname()[1]
        running.edit("master.cf", f"{proxy} inet", f"{proxy.host}:{port} inet")
        running.edit("main.cf", str(proxy), f"{proxy.host}:{port}")
        foreign.settimeout(10)
        status, text = running.check("--json")
    assert status == 2
    assert '"name": "port-twice"' in text
    assert f"listens on {proxy.host}:{port}; the proxy cannot listen there" in text


@pytest.mark.parametrize("running", [BEFORE], indirect=True)
def test_exiting_proxy_is_reported_as_missing_greeting(running: Running) -> None:
    running.edit("master.cf", "argv=", "argv=/bin/false argv=")
    running.postfix.reload()
    running.edit("master.cf", "argv=/bin/false argv=", "argv=")
    status, text = running.check()
    assert (status, "[no-greeting]" in text) == (2, True)
    assert "'connection closed'" in text


@pytest.mark.parametrize("running", [BEFORE], indirect=True)
def test_stopped_postfix_with_different_config_directory_is_ignored(running: Running) -> None:
    running.postfix.stop()
    assert "[postfix-stopped]" not in running.check()[1]
