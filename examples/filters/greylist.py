#!/usr/bin/python3 -IS
"""Greylisting: who sends for the first time is told to come back later, and spammers do not.

Needs:  Python 3, and a directory that only the filter's user can write to.
Use:    --strict -c {/usr/local/bin/greylist.py /var/lib/postprox/greylist.sqlite}
        or with another delay than 300 seconds:
        --strict -c {/usr/local/bin/greylist.py /var/lib/postprox/greylist.sqlite 60}
Down:   a database that cannot be used is a failure: 451, the sender tries again later.

Known are the client's network (/24, IPv6 /64), the sender and the first recipient, together. Mail
from our own networks, and from where nobody knows, passes. The filter sees a message when it has
been sent: greylisting at RCPT, as postgrey does, spares that; this is for where there is nothing
but the proxy. Put it last in a chain, and what is rejected anyway never comes to the database.
"""

from __future__ import annotations

import ipaddress
import os
import sqlite3
import sys
import time
import traceback

PASS, REJECT, FAIL = 0, 1, 2
DELAY = 300
# A first try is forgotten after two days: mail servers try again for longer than the delay, but
# spammers come back with the next list.
TRY_AGAIN_WITHIN = 2 * 86400
# One that came back is remembered as long as it writes once a month.
REMEMBERED = 35 * 86400
# Seconds to wait for another filter that is writing.
BUSY = 10

TABLE = """
CREATE TABLE IF NOT EXISTS seen (
    network TEXT, sender TEXT, recipient TEXT,
    first REAL, -- when it was seen first
    last REAL,  -- when it was seen last
    known INTEGER, -- whether it has come back
    PRIMARY KEY (network, sender, recipient)
) WITHOUT ROWID
"""
EXPIRE = "DELETE FROM seen WHERE last < ? OR (NOT known AND first < ?)"
INSERT = "INSERT OR IGNORE INTO seen VALUES (?, ?, ?, ?, ?, 0)"
SELECT = "SELECT first, known FROM seen WHERE network = ? AND sender = ? AND recipient = ?"
UPDATE = "UPDATE seen SET last = ?, known = ? WHERE network = ? AND sender = ? AND recipient = ?"


def network(address: str) -> str:
    """Return the network of an address; "" for our own."""
    if not address:
        return ""
    ip = ipaddress.ip_address(address)
    if ip.is_loopback or ip.is_link_local or any(ip in private for private in PRIVATE):
        return ""
    return str(ipaddress.ip_network(f"{ip}/{24 if ip.version == 4 else 64}", strict=False))


PRIVATE = [
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
]


def remaining(database: str, key: tuple[str, str, str], delay: float, now: float) -> float:
    """Return how many seconds are left to wait, 0 if the message may pass; and remember it."""
    connection = sqlite3.connect(database, timeout=BUSY, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(TABLE)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(EXPIRE, (now - REMEMBERED, now - TRY_AGAIN_WITHIN))
    connection.execute(INSERT, (*key, now, now))
    first, known = connection.execute(SELECT, key).fetchone()
    # A clock that was set back must not make anybody wait for years.
    left = 0 if known else min(delay, max(0, first + delay - now))
    connection.execute(UPDATE, (now, int(not left), *key))
    connection.execute("COMMIT")
    connection.close()
    return float(left)


def main(arguments: list[str]) -> int:
    """Return the exit status."""
    if not arguments:
        print("greylist.py: give the name of a database", file=sys.stderr)
        return FAIL
    delay = float(arguments[1]) if arguments[1:] else DELAY
    client = network(os.environ["REMOTEIP"])
    if not client:
        return PASS
    key = client, os.environ["SENDER"].lower(), os.environ["RECIPIENT"].lower()
    try:
        left = remaining(arguments[0], key, delay, time.time())
    except sqlite3.Error as error:
        print(f"greylist.py: {arguments[0]} cannot be used: {error}", file=sys.stderr)
        return FAIL
    if left:
        print(f"451 4.7.1 Greylisted, try again in {left:.0f} seconds", file=sys.stderr)
        return REJECT
    return PASS


if __name__ == "__main__":
    try:
        STATUS = main(sys.argv[1:])
    except Exception:
        # Python's own status after a traceback is 1, which would reject the message.
        traceback.print_exc()
        STATUS = FAIL
    sys.exit(STATUS)
