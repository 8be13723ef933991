"""The image of the proxy, with this machine's files in place of Debian's, and its containers."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pwd
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.postfix.devlog import may_unshare
from tests.postfix.instance import public_directory
from tests.support.fixtures import answering

from .containerfile import COMPOSE, CONTAINER, Service, Stage, parse, services
from .namespaces import Container, Image, build_stages, running

__all__ = ["answering"]

Start = Callable[..., Container]
HOST = Image(Stage("debian:12-slim"), [Path("/")])


def cannot_run() -> str:
    """Return the reason why no container can run here, or ""."""
    if os.geteuid() != 0:
        return "root is required"
    if not may_unshare():
        return "a mount namespace is required, which is forbidden here"
    missing = [tool for tool in ("ip", "nsenter", "setpriv") if not shutil.which(tool)]
    if missing or not Path("/usr/bin/python3").exists():
        return f"missing: {', '.join(missing) or '/usr/bin/python3'}"
    with contextlib.suppress(KeyError):
        return f"the user {pwd.getpwnam('postprox').pw_name} exists"
    return ""


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    if reason := cannot_run():
        pytest.skip(reason)
    # Not below the root, which is a layer: overlayfs refuses layers that contain each other.
    with public_directory("postprox-container-", "/dev/shm") as directory:
        yield directory


@pytest.fixture(scope="session")
def image(place: Path) -> Image:
    """The image of the Containerfile. Packages are not installed, because this machine has them."""
    stages = parse((CONTAINER / "Containerfile").read_text())
    without_packages = {
        name: dataclasses.replace(
            stage, steps=[step for step in stage.steps if "apt-get" not in step.words[0]]
        )
        for name, stage in stages.items()
    }
    return build_stages(without_packages, place, "image", {HOST.stage.base: HOST})


@pytest.fixture(scope="session")
def found() -> dict[str, Service]:
    return services(COMPOSE.read_text())


@pytest.fixture
def network(place: Path, found: dict[str, Service], image: Image) -> Iterator[Container]:
    with running(found["network"], HOST, place, None) as container:
        yield container


@pytest.fixture
def start(
    place: Path, found: dict[str, Service], image: Image, network: Container
) -> Iterator[Start]:
    """Start the service `proxy` of compose.yaml, with other settings if given."""
    with contextlib.ExitStack() as started:

        def begin(**settings: Any) -> Container:
            service = Service("proxy", {**found["proxy"].settings, **settings})
            return started.enter_context(running(service, image, place, network))

        yield begin
    for name in ("proxy.log", "network.log"):
        (place / name).unlink(missing_ok=True)
    shutil.rmtree(place / "volume-metrics", ignore_errors=True)
