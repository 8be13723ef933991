"""The README's two recipes, unchanged, with a real clamd and a real OpenDKIM."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from .client import connect_from, message, unix
from .instance import public_directory, without_trace
from .recipe import (
    AFTER,
    ALIAS,
    ARCHIVE,
    BEFORE,
    BOB,
    CAROL,
    LISTENING,
    OUTSIDE,
    SPAWNED,
    Recipe,
    running_recipe,
    scanning_filter,
)
from .scanner import EICAR, Scanner
from .signer import fits, is_signed, is_verified

pytestmark = pytest.mark.usefixtures("needs_postfix")

SERVICES = ("submission", "submissions")
WAYS = [(BEFORE, SPAWNED), (BEFORE, LISTENING), (AFTER, SPAWNED), (AFTER, LISTENING)]

#: A filter that appends a footer to every message.
FOOTER = 'cat "$EMAIL" - >"$OUTFILE" <<END\nfooter\nEND\n'
#: A filter that prepends its envelope to the message.
ENVELOPE = '{ echo "X-Envelope: $SENDER, $RECIPIENT"; cat "$EMAIL"; } >"$OUTFILE"'


@pytest.fixture(scope="module")
def scanner() -> Iterator[Scanner]:
    with public_directory("postprox-clamd-") as directory:
        clamd = Scanner(directory)
        clamd.start()
        yield clamd
        clamd.stop()


@pytest.fixture(scope="module", params=WAYS, ids=" ".join)
def recipe(request: pytest.FixtureRequest, scanner: Scanner) -> Iterator[Recipe]:
    mode, proxy = request.param
    with running_recipe(mode, proxy, scanning_filter(scanner)) as running:
        yield running


def test_external_mail_is_delivered_unchanged(recipe: Recipe) -> None:
    content = message("from outside", "x" * 5000)
    assert recipe.send(content, BOB)[0] == 250
    arrived = without_trace(recipe.arrival(BOB, "from outside"))
    assert arrived.endswith(unix(content))


def test_external_mail_is_never_signed(recipe: Recipe) -> None:
    assert recipe.send(message("forged"), BOB)[0] == 250
    assert not is_signed(recipe.arrival(BOB, "forged"))


@pytest.mark.parametrize("service", SERVICES)
def test_submitted_mail_is_signed(recipe: Recipe, service: str) -> None:
    assert recipe.submit(service, message(f"own by {service}"), BOB)[0] == 250
    signed = recipe.arrival(BOB, f"own by {service}")
    assert is_signed(signed)
    assert fits(signed)


def test_verifying_milters_run_only_after_queue(recipe: Recipe) -> None:
    recipe.send(message("verified"), BOB)
    assert is_verified(recipe.arrival(BOB, "verified")) == (recipe.mode == AFTER)


@pytest.mark.parametrize("service", ["smtp", *SERVICES])
def test_alias_and_archive_each_receive_one_copy(recipe: Recipe, service: str) -> None:
    content = message(f"copies by {service}")
    if service == "smtp":
        recipe.send(content, ALIAS)
    else:
        recipe.submit(service, content, ALIAS)
    for address in (BOB, CAROL, ARCHIVE):
        assert len(recipe.arrivals(address, f"copies by {service}")) == 1


def test_mail_to_120_recipients_is_filtered_only_once(recipe: Recipe) -> None:
    addresses = [f"member{number}@mail.test" for number in range(120)]
    with connect_from(recipe.postfix.addresses["smtp"], OUTSIDE) as session:
        reply = session.transact("list@mail.test", addresses, message("to many"))
    assert reply[0] == 250
    assert len(recipe.arrivals(ARCHIVE, "to many")) == 1
    # The message had a single entry in every queue, so it was never split among filter runs.
    assert set(re.findall(r"from=<list@.*nrcpt=(\d+)", recipe.postfix.log())) == {"121"}


def test_virus_is_rejected(recipe: Recipe) -> None:
    reply = recipe.send(message("virus", EICAR), BOB)
    if recipe.mode == BEFORE:
        assert reply == (550, b"5.7.1 The message contains a virus")
    else:
        assert reply[0] == 250
        recipe.postfix.wait_log(r"to=<bob@mail.test>.*status=bounced.*5\.7\.1 The message contains")
    assert recipe.arrivals(BOB, "virus") == []


def test_virus_from_local_user_is_never_delivered(recipe: Recipe) -> None:
    reply = recipe.submit("submission", message("own virus", EICAR), BOB)
    assert reply[0] == (550 if recipe.mode == BEFORE else 250)
    assert recipe.arrivals(BOB, "own virus") == []


def test_local_mail_is_filtered_only_after_queue(recipe: Recipe) -> None:
    sender, recipient = "program@mail.test", "operator@mail.test"
    recipe.postfix.sendmail(sender, recipient, unix(message("local virus", EICAR)))
    if recipe.mode == BEFORE:
        assert is_signed(recipe.postfix.wait_delivered(recipient))
    else:
        bounce = recipe.postfix.wait_delivered(sender)
        assert b"Diagnostic-Code: smtp; 550 5.7.1 The message contains a virus" in bounce
        assert recipe.arrivals(recipient, "local virus") == []


def test_virus_is_not_delivered_if_clamd_is_stopped(recipe: Recipe, scanner: Scanner) -> None:
    scanner.stop()
    try:
        reply = recipe.send(message("virus meanwhile", EICAR), BOB)
        assert reply[0] == (451 if recipe.mode == BEFORE else 250)
        assert recipe.arrivals(BOB, "virus meanwhile") == []
    finally:
        scanner.start()
    recipe.postfix.flush()
    assert recipe.arrivals(BOB, "virus meanwhile") == []


@pytest.mark.parametrize(("mode", "proxy"), WAYS)
def test_postfix_does_not_log_warnings(scanner: Scanner, mode: str, proxy: str) -> None:
    with running_recipe(mode, proxy, scanning_filter(scanner)) as own:
        own.send(message("clean"), BOB)
        own.send(message("virus", EICAR), BOB)
        for service in SERVICES:
            own.submit(service, message(f"clean by {service}"), BOB)
        assert len(own.arrivals(BOB, "clean by submission")) == 1
        assert own.postfix.complaints() == []


@pytest.mark.parametrize("mode", [BEFORE, AFTER])
def test_signature_is_valid_for_modified_message(mode: str) -> None:
    with running_recipe(mode, SPAWNED, FOOTER) as own:
        own.submit("submission", message("changed"), BOB)
        arrived = own.arrival(BOB, "changed")
    assert arrived.endswith(b"\nfooter\n")
    assert fits(arrived)


@pytest.mark.parametrize("typed", ["bob@mail.test.", "bob @ mail.test", "bob(x)@mail.test"])
def test_before_queue_filter_receives_unmodified_addresses(typed: str) -> None:
    with running_recipe(BEFORE, SPAWNED, ENVELOPE) as own:
        with connect_from(own.postfix.addresses["smtp"], OUTSIDE) as session:
            assert session.transact(typed, [typed], message("typed"))[0] == 250
        arrived = own.arrival(BOB, "typed")
    assert f"X-Envelope: {typed}, {typed}\n".encode() in arrived
    assert b"Return-Path: <bob@mail.test>\n" in arrived


@pytest.mark.parametrize(
    ("mode", "recipient", "seen"),
    [
        (BEFORE, BOB, BOB),
        (AFTER, BOB, ARCHIVE),
        (AFTER, "aaron@mail.test", "aaron@mail.test"),
    ],
)
def test_after_queue_recipient_is_alphabetically_first(
    mode: str, recipient: str, seen: str
) -> None:
    with running_recipe(mode, SPAWNED, ENVELOPE) as own:
        own.send(message("archived"), recipient)
        arrived = own.arrival(recipient, "archived")
    assert f"X-Envelope: alice@mail.test, {seen}\n".encode() in arrived


# These tests remove a line from the README to show its purpose.


def without(words: str) -> Callable[[str], str]:
    """Return an edit that removes these words from the README's text."""

    def edit(text: str) -> str:
        return text.replace(words, "")

    return edit


@pytest.mark.parametrize("mode", [BEFORE, AFTER])
def test_forged_mail_is_signed_if_milters_remain_enabled(mode: str) -> None:
    with running_recipe(mode, SPAWNED, "exit 0", without(",no_milters")) as own:
        own.send(message("forged"), BOB)
        assert is_signed(own.arrival(BOB, "forged"))


def test_archive_copy_is_duplicated_if_addresses_are_mapped_twice() -> None:
    with running_recipe(AFTER, SPAWNED, "exit 0", without("no_address_mappings,")) as own:
        own.send(message("twice"), BOB)
        assert len(own.arrivals(ARCHIVE, "twice")) == 2


def test_virus_is_delivered_if_filter_fails_without_reject_option() -> None:
    with running_recipe(BEFORE, SPAWNED, "exit 2", without(" --strict")) as own:
        assert own.send(message("virus", EICAR), BOB)[0] == 250
        assert own.arrivals(BOB, "virus") != []
