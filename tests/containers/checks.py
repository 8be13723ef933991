"""The checks of a running proxy that the gate and `python3 -m tests.containers` share."""

from __future__ import annotations

from .namespaces import Container


def check_isolation(proxy: Container) -> None:
    """Check the proxy's user, privileges and read-only root."""
    uid, gid = proxy.image.stage.user.split(":")
    assert proxy.status("NSpid").split()[-1] == "1"
    assert proxy.status("Uid").split() == [uid] * 4
    assert proxy.status("Gid").split() == [gid] * 4
    for name in ("CapEff", "CapPrm", "CapBnd"):
        assert int(proxy.status(name), 16) == 0, name
    assert proxy.status("NoNewPrivs") == "1"
    for path in ("/new", "/usr/local/sbin/new", "/var/spool/new", "/run/new"):
        assert "Read-only file system" in proxy.run("touch", path).stderr, path
    assert proxy.run("touch", "/usr/local/bin/mail-filter").returncode != 0
    assert proxy.run("touch", "/var/spool/postprox/a", "/run/postprox/a").returncode == 0
    assert proxy.run("rm", "/var/spool/postprox/a", "/run/postprox/a").returncode == 0
    mode = proxy.run("stat", "-f", "-c", "%T", "/var/spool/postprox").stdout.strip()
    assert mode == "tmpfs", mode


def healthy(proxy: Container) -> bool:
    """Run the image's health check."""
    return proxy.run(*proxy.image.stage.health).returncode == 0
