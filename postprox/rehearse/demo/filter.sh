#!/bin/sh
# The filter of the demonstration. It requires only grep and sed.
#
# EMAIL is the path of the file that contains the message. OUTFILE is the path of an empty file for
# a changed message. Exit status 0 lets the message pass, and 1 rejects it with the last line of
# standard error. Status 2 means that the filter has failed.

# Reject messages with a lottery in the subject.
if grep -qi '^Subject:.*lottery' "$EMAIL"; then
    echo "550 5.7.1 We do not play the lottery here" >&2
    exit 1
fi

# Remove tracking parameters from links.
if grep -q '?utm_' "$EMAIL"; then
    sed 's/?utm_[^ >]*//' "$EMAIL" >"$OUTFILE" || exit 2
fi

exit 0
