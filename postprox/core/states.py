"""The states of a session, and the transitions between them.

Rule: `TRANSITIONS` is complete. A session checks each transition against this table and ends with
421 if the transition is missing. The table in ``docs/design.md`` (``python3 -m docs.transitions``)
and the picture ``docs/states.svg`` (``python3 -m docs.draw``) are generated from `TRANSITIONS`.
"""

# The comment on each state names the event that the session is waiting for.
CONNECTING = "connecting"  # the connection, the greeting and the reply to a repeated EHLO
COMMAND = "command"  # a command line from the client
AUTH_RESPONSE = "auth_response"  # the client's response to a 334 reply (relay.auth)
AWAITING_REPLY = "awaiting_reply"  # the upstream server's reply to a relayed command
OPENING_SPOOL = "opening_spool"  # the creation of the spool
RECEIVING = "receiving"  # the message from the client
FILTERING = "filtering"  # the filter's exit
DELIVERING = "delivering"  # the upstream server's replies to DATA and to the end of data
CLOSED = "closed"  # no event, because the client's connection is closed

#: Maps each state to its possible next states, and each next state to the event that leads to it. A
#: session starts in CONNECTING. A termination signal (files.term) or an internal error leads from
#: any state to CLOSED. The upstream server "fails" if its connection is refused or lost, if a reply
#: is late or invalid, or if the server refuses a command that the proxy itself issued.
TRANSITIONS = {
    CONNECTING: {
        COMMAND: "the upstream server sends its first greeting",
        AWAITING_REPLY: "a new connection is ready and the pending command is relayed",
        CLOSED: "the upstream server fails, or the client disconnects",
    },
    COMMAND: {
        COMMAND: "the proxy itself answers the command",
        AWAITING_REPLY: "the command is relayed",
        CONNECTING: "the command requires a new connection to the upstream server",
        OPENING_SPOOL: "the client sends DATA after an accepted recipient",
        CLOSED: "QUIT is answered, 421 is sent, or the client disconnects or times out",
    },
    AUTH_RESPONSE: {
        AWAITING_REPLY: "the response is relayed",
        CLOSED: "421 is sent, or the client disconnects or times out",
    },
    AWAITING_REPLY: {
        COMMAND: "the reply is relayed",
        AUTH_RESPONSE: "a 334 reply to AUTH is relayed",
        AWAITING_REPLY: "the proxy's own RSET is accepted and the pending command is relayed",
        CLOSED: "the upstream server fails, or the client disconnects",
    },
    OPENING_SPOOL: {
        RECEIVING: "the spool is open and the proxy sends 354",
        COMMAND: "the spool cannot be created and the proxy sends 452",
        CLOSED: "the proxy has an internal error",
    },
    RECEIVING: {
        FILTERING: "the client sends the end of data",
        CLOSED: "the client disconnects or times out, or the upstream server fails",
    },
    FILTERING: {
        DELIVERING: "the message passes, or there is no filter",
        COMMAND: "the message is rejected or discarded, the filter fails (-r), or the spool fails",
        CLOSED: "the client disconnects, or the upstream server fails",
    },
    DELIVERING: {
        COMMAND: "DATA is refused, the final reply is relayed, or the message cannot be read",
        CLOSED: (
            "the client disconnects before the end of data is sent upstream, "
            "or the upstream server fails"
        ),
    },
    CLOSED: {},
}
