"""Derives the required outcome of each message in a session from the specification.

Rule: a pure function of the plan and of the replies to the client, which show which commands were
accepted. Observations at the upstream server and the filter are not an input, but are compared with
the result.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from . import content
from .plan import Command, Message
from .run import Exchange, Run


@dataclass
class ExpectedOutcome:
    """The required outcome of one DATA command."""

    message: Message
    exchange: Exchange
    #: Whether a sender and a recipient were accepted.
    permitted: bool
    mail: Command | None
    recipients: tuple[bytes, ...]
    #: The filter's variables, except those with values that the specification does not define.
    environment: dict[str, bytes]
    filtering: bool
    rejects_failures: bool

    @property
    def failed(self) -> bool:
        """Whether the filter fails."""
        return self.filtering and self.message.verdict.status > 1

    @property
    def rejected(self) -> bool:
        """Whether the filter rejects the message."""
        return self.filtering and self.message.verdict.status == 1

    @property
    def passed(self) -> bytes | None:
        """The content that upstream must receive, or None if it must receive nothing."""
        if not self.permitted or self.rejected or (self.failed and self.rejects_failures):
            return None
        verdict = self.message.verdict
        if self.filtering and verdict.status == 0 and verdict.outfile:
            return content.replaced_by(verdict.outfile)
        return content.passed_on(self.message.body)

    @property
    def delivered(self) -> bool:
        """Whether the message must be sent upstream. The upstream server may still refuse it."""
        return (
            self.passed is not None and self.mail is not None and self.mail.data_answer.code == 354
        )


@dataclass
class _Transaction:
    """The replies that the client has received in one transaction."""

    mail: Command | None = None
    recipients: list[Command] = field(default_factory=list)
    attributes: dict[bytes, bytes] = field(default_factory=dict)
    #: XFORWARD was accepted and later refused. The specification does not define which values
    #: apply.
    unclear: bool = False


def fates(run: Run) -> list[ExpectedOutcome]:
    """Return the required outcome of each message, in order."""
    found = []
    transaction, helo = _Transaction(), b""
    for exchange in run.exchanges:
        match exchange.item:
            case Message():
                found.append(_fate(run, exchange, exchange.item, transaction, helo))
                if found[-1].permitted:
                    transaction = _Transaction()
            case Command() as command if command.verb in (b"EHLO", b"HELO", b"RSET"):
                if exchange.accepted:
                    transaction = _Transaction()
                    helo = helo if command.verb == b"RSET" else command.line[5:]
            case Command() as command:
                _apply(command, exchange, transaction)
    return found


def _apply(command: Command, exchange: Exchange, transaction: _Transaction) -> None:
    match command.verb:
        case b"MAIL" if exchange.accepted:
            transaction.mail = command
        case b"RCPT" if exchange.accepted:
            transaction.recipients.append(command)
        case b"XFORWARD" if exchange.accepted:
            transaction.attributes.update(command.attributes)
        case b"XFORWARD":
            transaction.unclear |= bool(transaction.attributes)


def _fate(
    run: Run, exchange: Exchange, message: Message, transaction: _Transaction, helo: bytes
) -> ExpectedOutcome:
    return ExpectedOutcome(
        message,
        exchange,
        transaction.mail is not None and bool(transaction.recipients),
        transaction.mail,
        tuple(command.line for command in transaction.recipients),
        _environment(transaction, helo),
        run.plan.filtering,
        run.plan.rejects_failures,
    )


def _environment(transaction: _Transaction, helo: bytes) -> dict[str, bytes]:
    mail, recipients = transaction.mail, transaction.recipients
    values = {
        "SENDER": mail.address if mail else b"",
        "RECIPIENT": recipients[0].address if recipients else b"",
    }
    if not transaction.unclear:
        values["REMOTEIP"] = transaction.attributes.get(b"ADDR", b"")
        values["HELO"] = transaction.attributes.get(b"HELO", helo)
    return {name: content.variable(value) for name, value in values.items()}
