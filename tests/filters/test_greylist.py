"""greylist.py with a database of its own."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .conftest import MESSAGE, Ended, Filter, command


class Greylist:
    """The filter, and its database, whose times can be turned back."""

    def __init__(self, run: Filter, path: Path) -> None:
        self.run = run
        self.path = path

    def __call__(self, **envelope: str) -> Ended:
        return self.run(command("greylist.py", self.path), MESSAGE, **envelope)

    def pass_time(self, seconds: float) -> None:
        """Make all that is remembered older."""
        with sqlite3.connect(self.path) as connection:
            connection.execute("UPDATE seen SET first = first - ?, last = last - ?", [seconds] * 2)
        connection.close()

    def count(self) -> int:
        connection = sqlite3.connect(self.path)
        ((count,),) = connection.execute("SELECT count(*) FROM seen")
        connection.close()
        return int(count)


@pytest.fixture
def greylist(run: Filter, tmp_path: Path) -> Greylist:
    return Greylist(run, tmp_path / "greylist.sqlite")


def test_a_first_message_has_to_come_back(greylist: Greylist) -> None:
    ended = greylist()
    assert (ended.status, ended.reply) == (1, "451 4.7.1 Greylisted, try again in 300 seconds")


def test_too_soon_is_too_soon(greylist: Greylist) -> None:
    greylist()
    greylist.pass_time(200)
    assert greylist().reply.startswith("451 4.7.1 Greylisted, try again in ")


def test_after_the_delay_it_passes_and_so_does_the_next(greylist: Greylist) -> None:
    greylist()
    greylist.pass_time(301)
    assert [greylist().status, greylist().status] == [0, 0]


def test_the_delay_is_an_argument(run: Filter, tmp_path: Path) -> None:
    ended = run(command("greylist.py", tmp_path / "db", 60))
    assert ended.reply.endswith("in 60 seconds")


def test_the_case_of_an_address_makes_no_difference(greylist: Greylist) -> None:
    greylist()
    greylist.pass_time(301)
    assert greylist(SENDER="A@Example.NET", RECIPIENT="B@example.ORG").status == 0


@pytest.mark.parametrize("neighbour", ["192.0.2.1", "192.0.2.254"])
def test_the_same_network_may_come_back(greylist: Greylist, neighbour: str) -> None:
    greylist()
    greylist.pass_time(301)
    assert greylist(REMOTEIP=neighbour).status == 0


@pytest.mark.parametrize(
    "other",
    [
        {"REMOTEIP": "192.0.3.1"},
        {"REMOTEIP": "2001:db8::1"},
        {"SENDER": "other@example.net"},
        {"RECIPIENT": "other@example.org"},
    ],
)
def test_another_has_to_wait_itself(greylist: Greylist, other: dict[str, str]) -> None:
    greylist()
    greylist.pass_time(301)
    assert greylist(**other).status == 1


@pytest.mark.parametrize("address", ["", "127.0.0.1", "10.1.2.3", "192.168.1.1", "::1", "fd00::1"])
def test_our_own_do_not_wait(greylist: Greylist, address: str) -> None:
    assert greylist(REMOTEIP=address).status == 0


def test_who_comes_back_after_days_has_to_wait_again(greylist: Greylist) -> None:
    greylist()
    greylist.pass_time(3 * 86400)
    assert greylist().status == 1


def test_who_is_known_stays_known_for_a_month(greylist: Greylist) -> None:
    greylist()
    greylist.pass_time(301)
    greylist()
    greylist.pass_time(30 * 86400)
    assert greylist().status == 0


def test_what_is_old_is_forgotten(greylist: Greylist) -> None:
    greylist(SENDER="old@example.net")
    greylist.pass_time(36 * 86400)
    greylist()
    assert greylist.count() == 1


def test_a_clock_that_was_set_back_makes_nobody_wait_longer(greylist: Greylist) -> None:
    greylist()
    greylist.pass_time(-86400)
    assert greylist().reply.endswith("in 300 seconds")


def test_quotes_in_an_address_are_harmless(greylist: Greylist) -> None:
    assert greylist(SENDER='"a\'; DROP TABLE seen; --"@example.net').status == 1
    assert greylist.count() == 1


def test_many_at_once_lose_nothing(tmp_path: Path) -> None:
    def one(number: int) -> int:
        directory = tmp_path / str(number)
        directory.mkdir()
        run = Filter(directory)
        return Greylist(run, tmp_path / "db")(SENDER=f"{number}@example.net").status

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(16))) == [1] * 16
    assert Greylist(Filter(tmp_path), tmp_path / "db").count() == 16


def test_it_fails_without_its_directory(run: Filter, tmp_path: Path) -> None:
    database = tmp_path / "missing" / "db"
    ended = run(command("greylist.py", database))
    said = f"greylist.py: {database} cannot be used: unable to open database file"
    assert (ended.status, ended.reply) == (2, said)


def test_it_fails_with_a_broken_database(run: Filter, tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(b"this is no database, but long enough to look like one" * 100)
    assert run(command("greylist.py", tmp_path / "db")).status == 2


@pytest.mark.parametrize("arguments", [[], ["db", "soon"]])
def test_wrong_arguments_are_a_failure(run: Filter, tmp_path: Path, arguments: list[str]) -> None:
    assert run(command("greylist.py", *(tmp_path / word for word in arguments))).status == 2
