"""python3 -m tests.containers: build the images in packaging/container/ and run compose.yaml.

No container runtime is used. The instructions in the Containerfiles run in a clean Debian system
from debootstrap, and the services run in namespaces (`namespaces`). The program requires root and a
Debian mirror.

It does not test the image build of docker and podman, their networks, published ports, restarts,
memory limits (`containerfile.UNTRIED`), or the public image debian:12-slim.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable

from .checks import check_isolation, healthy
from .containerfile import COMPOSE, ROOT, Service, Stage, parse, services
from .namespaces import TIMEOUT, Container, Image, base, build, build_stages, running, signal_number
from .page import DERIVED

PLACE = ROOT / ".nox/container"
TOOLS = ("debootstrap", "unshare", "nsenter", "ip")
MAILBOX = "/var/mail/root"
DONE = "the images were built and the services of compose.yaml passed all checks"

#: Sends a message of "$1" octets to port 25 and prints the reply code.
SEND = """
import smtplib, sys
body = ("x" * 76 + "\\r\\n") * (int(sys.argv[1]) // 78 + 1)
client = smtplib.SMTP("127.0.0.1", 25, timeout=60)
try:
    client.sendmail("a@example.org", ["root@example.com"], f"Subject: t\\r\\n\\r\\n{body}")
    print(250)
except smtplib.SMTPResponseException as error:
    print(error.smtp_code, error.smtp_error.decode())
"""


def wait_until(what: str, condition: Callable[[], object]) -> None:
    """Wait until `condition()` is true."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"timeout: {what}")
        time.sleep(0.2)


def send(network: Container, size: int) -> str:
    """Send a message of `size` octets to port 25 and return the reply."""
    command = ["nsenter", f"--target={network.pid}", "--net", sys.executable, "-c", SEND, str(size)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def delivered(postfix: Container) -> int:
    """Return the number of messages in the mailbox."""
    found = postfix.run("grep", "-c", "^From ", MAILBOX).stdout.strip()
    return int(found or 0)


def report(text: str) -> None:
    """Print a result."""
    print(text, flush=True)


def check_mail(network: Container, postfix: Container, proxy: Container) -> None:
    """Send an accepted message and a rejected message, and check the log and the metrics."""
    assert send(network, 1000) == "250"
    wait_until("the message is delivered", lambda: delivered(postfix) == 1)
    assert send(network, 6_000_000).startswith("552 5.3.4 The message is too large")
    assert delivered(postfix) == 1
    wait_until("the log has both messages", lambda: "verdict=reject" in proxy.log.read_text())
    assert "verdict=accept result=delivered" in proxy.log.read_text()
    assert "filtered/smtpd" in postfix.log.read_text()
    metrics = PLACE / "volume-metrics/postprox.prom"
    wait_until("metrics count both", lambda: 'verdict="reject"' in metrics.read_text())
    report("mail: one message delivered, one rejected by the filter; log and metrics agree")


#: docs/containers.md: "about 50 MB".
LARGEST_ADDITION = 60


def sizes(image: Image) -> str:
    """Return the size of the layers."""
    done = subprocess.run(
        ["/usr/bin/du", "-scm", *map(str, image.layers)], check=True, capture_output=True, text=True
    )
    numbers = [line.split()[0] for line in done.stdout.splitlines()]
    assert int(numbers[-1]) - int(numbers[-2]) <= LARGEST_ADDITION
    return f"{numbers[-1]} MB, of which the base system has {numbers[-2]} MB"


def check_derived(image: Image) -> None:
    """Build the image that docs/containers.md derives from the proxy's image."""
    derived = build_stages(parse(DERIVED), PLACE, "derived", {"postprox": image})
    assert derived.stage.user == image.stage.user
    with running(
        Service("derived", {"entrypoint": ["/bin/sleep", "60"]}), derived, PLACE, None
    ) as it:
        assert "SpamAssassin Client" in it.run("/usr/bin/spamc", "-V").stdout
        assert it.run("/bin/sh", "-n", "/usr/local/bin/mail-filter").returncode == 0
    report("docs/containers.md: the image with a filter was built")


def check_services(found: dict[str, Service], images: dict[str, Image]) -> None:
    """Start all services, send mail, and restart each service."""

    def start(
        name: str, network: Container | None = None
    ) -> contextlib.AbstractContextManager[Container]:
        return running(found[name], images[name], PLACE, network)

    def stop(container: Container, name: str) -> int:
        service = found[name]
        return container.stop(signal_number(service), service.seconds("stop_grace_period", 10))

    with contextlib.ExitStack() as all_of_them:
        network = all_of_them.enter_context(start("network"))
        proxy = all_of_them.enter_context(start("proxy", network))
        wait_until(
            "port 10025 is open", lambda: "421" in proxy.run(*proxy.image.stage.health).stdout
        )
        report("health: without Postfix the check fails with the proxy's 421")
        with start("postfix", network) as postfix:
            wait_until("the proxy is healthy", lambda: healthy(proxy))
            report("health: with Postfix the check passes")
            check_isolation(proxy)
            report("proxy: process 1, not root, no capabilities, read-only root, spool on tmpfs")
            check_mail(network, postfix, proxy)
            status = stop(proxy, "proxy")
            assert status == 0, status
            assert send(network, 1000).startswith("451 ")
            proxy = all_of_them.enter_context(start("proxy", network))
            wait_until("the proxy is healthy again", lambda: healthy(proxy))
            assert send(network, 1000) == "250"
            report("proxy: SIGTERM ends it with status 0; senders get 451 until it is back")
            stop(postfix, "postfix")
        assert not healthy(proxy)
        with start("postfix", network) as postfix:
            wait_until("the proxy is healthy", lambda: healthy(proxy))
            assert send(network, 1000) == "250"
            report("postfix: after its restart the same proxy passes mail")
        assert stop(network, "network") != 0


def main() -> int:
    """Build and test all images. Return the exit status."""
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if os.getuid() != 0 or missing:
        print("root, debootstrap, util-linux and iproute2 are required")
        return 2
    PLACE.mkdir(parents=True, exist_ok=True)
    for old in (*PLACE.glob("volume-*"), *PLACE.glob("*.log")):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    found = services(COMPOSE.read_text())
    images = {}
    for name, service in found.items():
        if service.containerfile:
            images[name] = build(service.containerfile, PLACE)
            report(f"{service.containerfile.relative_to(ROOT)}: built, {sizes(images[name])}")
        else:
            images[name] = ready_image(service.settings["image"])
    check_derived(images["proxy"])
    check_services(found, images)
    report(DONE)
    return 0


def ready_image(name: str) -> Image:
    """Return an image that the Containerfiles do not build."""
    return Image(Stage(name), [base(name, PLACE)])


if __name__ == "__main__":
    sys.exit(main())
