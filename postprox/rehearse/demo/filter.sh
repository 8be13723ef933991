#!/bin/sh
# The filter of the demonstration. It needs nothing but grep and sed.
#
# EMAIL names the file that holds the message, OUTFILE an empty one for a changed version.
# Exit status 0 lets the message pass, 1 rejects it with the last line of standard error,
# and 2 says that the filter itself has failed.

# Reject: a subject that promises money.
if grep -qi '^Subject:.*lottery' "$EMAIL"; then
    echo "550 5.7.1 We do not play the lottery here" >&2
    exit 1
fi

# Rewrite: links without what only tracks the reader.
if grep -q '?utm_' "$EMAIL"; then
    sed 's/?utm_[^ >]*//' "$EMAIL" >"$OUTFILE" || exit 2
fi

exit 0
