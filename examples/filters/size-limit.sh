#!/bin/sh
# Reject messages above a size limit.
#
# Needs:  only sh and wc.
# Use:    --strict -c {/usr/local/bin/size-limit.sh 25000000}
# Down:   the filter uses no scanner. If the message cannot be read, the filter fails (451).
#
# The limit is in octets with LF line endings, so the size is slightly below the size in Postfix.
# For a global limit, Postfix's message_size_limit is better, because it refuses the message before
# it is sent. Use this filter for limits that Postfix does not support, for example by SENDER or
# RECIPIENT.

limit=$1

case $limit in
# Some shells do not support numbers of sixteen digits, and would let every message pass.
'' | *[!0-9]* | ????????????????*)
    echo "size-limit.sh: '$limit': the limit must be a number of octets" >&2
    exit 2
    ;;
esac

size=$(wc -c <"$EMAIL") || exit 2
if [ "$size" -gt "$limit" ]; then
    echo "552 5.3.4 The message is too large: $size octets, but the limit is $limit" >&2
    exit 1
fi
exit 0
