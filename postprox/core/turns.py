"""Whose turn it is in a session, and whose may be next.

Rule: `FOLLOWS` holds every step that a session may take; `session` takes them. The unit tests'
`Dialogue` asserts each step against it, and ``docs/turns.svg`` is drawn from it.
"""

CONNECT = "connect"  # upstream's: connection, greeting, and what is replayed on a new connection
COMMAND = "command"  # the client's: a command line
ANSWER = "answer"  # the client's: an answer to a 334 (relay.auth)
REPLY = "reply"  # upstream's: the reply to a relayed command
SPOOL = "spool"  # the spool's: it is being made
RECEIVE = "receive"  # the client's: the message
FILTER = "filter"  # the filter's
DELIVER = "deliver"  # upstream's: DATA, the message, the reply to its end
CLOSED = "closed"  # nobody's: the client's connection is closed

#: Whose turn may follow whose, and when it does. A session starts with CONNECT.
FOLLOWS = {
    CONNECT: {
        COMMAND: "upstream has greeted the client",
        REPLY: "the held command is relayed on the new connection",
        CLOSED: "upstream cannot be reached, is lost, silent, or refuses",
    },
    COMMAND: {
        COMMAND: "the command is answered by the proxy itself",
        REPLY: "the command is relayed",
        CONNECT: "the command needs upstream, which was left after a message",
        SPOOL: "DATA, after an accepted recipient",
        CLOSED: "the client has ended, is silent, or is told 421",
    },
    ANSWER: {
        REPLY: "the answer is relayed",
        CLOSED: "the client has ended, is silent, or is told 421",
    },
    REPLY: {
        COMMAND: "the reply is relayed",
        ANSWER: "the reply is 334, to AUTH or to an answer in it",
        REPLY: "RSET has ended the transaction upstream; the command follows",
        CLOSED: "QUIT is answered; or upstream is lost, silent, or garbled",
    },
    SPOOL: {
        RECEIVE: "the spool is there: 354",
        COMMAND: "the spool cannot be made: 452",
        CLOSED: "the proxy is stopped, or has a fault",
    },
    RECEIVE: {
        FILTER: "the message has ended",
        CLOSED: "the client is gone or silent, or upstream is lost",
    },
    FILTER: {
        DELIVER: "the message passes",
        COMMAND: "the message is refused: by the filter, or it cannot be stored",
        CLOSED: "the client is gone, or upstream is lost",
    },
    DELIVER: {
        COMMAND: "upstream's final reply, or its refusal of DATA, is relayed",
        CLOSED: "the client is gone before DATA's end, or upstream is lost",
    },
    CLOSED: {},
}
