#!/bin/sh
# Mark spam with SpamAssassin's header fields, and reject what is certainly spam. Needs a running
# spamd.

# Points from which a message is rejected; below, it is only marked.
REJECT_FROM=15
# Larger messages pass without a look: spam is small. In octets.
LARGEST=512000

# -x: fail if spamd does not answer, rather than hand the message back unseen.
spamc -x -s "$LARGEST" <"$EMAIL" >"$OUTFILE" || {
    echo "spamc ended with status $?" >&2
    exit 2
}

# One star for each point, in the header, that is: before the first empty line.
stars=$(sed -n -e '/^$/q' -e 's/^X-Spam-Level: *\(\**\).*/\1/p' "$OUTFILE" | tail -n 1)
if [ "${#stars}" -ge "$REJECT_FROM" ]; then
    echo "550 5.7.1 The message looks like spam" >&2
    exit 1
fi
exit 0
