#!/bin/sh
# Reject messages above a size.
#
# Needs:  nothing but sh and wc.
# Use:    --strict -c {/usr/local/bin/size-limit.sh 25000000}
# Down:   there is no scanner. A message that cannot be read is a failure: 451.
#
# The size is in octets, with LF line ends, and so a little less than Postfix counts. For one limit
# for everybody Postfix's message_size_limit is better, as it refuses before the message is sent:
# this is for limits of a kind that it does not have, by SENDER or RECIPIENT, for example.

limit=$1

case $limit in
# Of sixteen digits sh may not make a number; then nothing would be too large.
'' | *[!0-9]* | ????????????????*)
    echo "size-limit.sh: '$limit': give a limit in octets" >&2
    exit 2
    ;;
esac

size=$(wc -c <"$EMAIL") || exit 2
if [ "$size" -gt "$limit" ]; then
    echo "552 5.3.4 The message is too large: $size octets, and we take $limit" >&2
    exit 1
fi
exit 0
