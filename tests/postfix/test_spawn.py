"""Filters under spawn(8): inherited resources, and a reload, restart or stop during a message."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from .client import begin_data, message
from .site import Site, running_site


def output_of(site: Site, commands: str) -> str:
    """Run shell commands in a filter. Return their output."""
    path = site.proxy.directory / "runs"
    box = site.proxy.box(
        f'{{ {commands}; }} >"{path}/$$.out"; mv "{path}/$$.out" "{path}/out.$name"'
    )
    assert site.send("strict_before", box, message("what is it like"))[0] == 250
    return (path / f"out.{box.name}").read_text()


def test_filter_runs_as_service_user(site: Site) -> None:
    assert output_of(site, "id -un") == "nobody\n"


def test_filter_does_not_ignore_sigpipe(site: Site) -> None:
    # spawn(8) and Python start their commands with SIGPIPE ignored.
    assert output_of(site, "(sh -c 'kill -PIPE $$'; echo $?)") == "141\n"


def test_filter_does_not_inherit_proxy_connections(site: Site) -> None:
    assert "socket:" not in output_of(site, 'for fd in /proc/$$/fd/*; do readlink "$fd"; done')


def test_filter_cannot_read_client_input(site: Site) -> None:
    assert output_of(site, "readlink /proc/$$/fd/0") == "/dev/null\n"


def test_current_message_is_delivered_during_postfix_reload(
    needs_postfix: None,
) -> None:
    with running_site() as own, ThreadPoolExecutor() as clients:
        box, gate = own.proxy.gated_box()
        reply = clients.submit(own.send, "open_before", box, message("reloaded"))
        box.wait_run()
        own.postfix.reload()
        gate.write_text("go\n")
        assert reply.result()[0] == 250
        own.postfix.wait_delivered(box.address)


def test_current_message_is_delivered_exactly_once_after_postfix_restart(
    needs_postfix: None,
) -> None:
    with running_site() as own:
        box = own.proxy.box("sleep 600")
        own.send("open_after", box, message("interrupted"))
        box.wait_run()
        own.postfix.stop()
        assert list(own.proxy.spool.iterdir()) == []
        own.proxy.rewrite(box, "exit 0")
        assert own.postfix.start()
        own.postfix.wait_delivered(box.address)
        own.postfix.wait_quiet()
        assert len(own.postfix.delivered(box.address)) == 1


def test_postfix_stop_during_filter_run_prevents_delivery(needs_postfix: None) -> None:
    with running_site() as own:
        box = own.proxy.box("sleep 600")
        with begin_data(own.postfix.addresses["open_before"], box) as peer:
            peer.sends(message("interrupted", "text") + b".\r\n")
            box.wait_run()
            own.postfix.stop()  # fails if a process is left
        assert list(own.proxy.spool.iterdir()) == []
