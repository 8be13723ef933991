#!/bin/sh
# Mark spam with SpamAssassin's header fields, and reject messages with a high score.
#
# Needs:  spamc and a running spamd (Debian: spamc, spamd).
# Use:    --strict -c /usr/local/bin/spamassassin.sh
#         or to reject messages with 10 points or more, with options for spamc:
#         --strict -c {/usr/local/bin/spamassassin.sh 10 -U /run/spamd.sock}
# Down:   spamc fails, and the filter exits with status 2 (451). The sender tries again later.
#
# The filter passes the envelope sender to SpamAssassin in the field X-Envelope-From, and removes
# this field from the result.

# The lowest rejected score, a whole number. A message with a lower score is only marked.
reject_from=${1:-15}
[ "$#" -eq 0 ] || shift
# The size limit in octets. Larger messages pass without a check, because spam is small.
largest=512000

case $reject_from in
# sh does not support numbers with very many digits, and would reject no message.
*[!0-9]* | ?????*)
    echo "spamassassin.sh: '$reject_from': the score must be a whole number" >&2
    exit 2
    ;;
esac

# A line break in the sender would end the field, and an empty line would end the header.
sender=$SENDER
case $sender in
*[[:cntrl:]]*) sender=$(printf '%s' "$sender" | LC_ALL=C tr '[:cntrl:]' '?') || exit 2 ;;
esac

size=$(wc -c <"$EMAIL") || exit 2
[ "$size" -le "$largest" ] || exit 0

# Each command of the pipeline reports a failure on descriptor 3, so that a truncated message is not
# taken for a marked message. -x: fail if spamd does not respond. Otherwise, spamc would return the
# message unchecked.
failed=$(
    {
        {
            # 141 means SIGPIPE. In this case, spamc has exited first and has reported the error.
            printf 'X-Envelope-From: %s\n' "$sender" && cat "$EMAIL" ||
                [ $? -eq 141 ] || echo "cannot read EMAIL" >&3
        } | {
            spamc -x -s 100000000 "$@" || case $? in
                # 70: spamc does not find the socket.
                69 | 70) echo "spamc received no reply; check that spamd is running" >&3 ;;
                *) echo "spamc exited with status $?" >&3 ;;
            esac
        } | {
            LC_ALL=C sed '0,/^X-Envelope-From: /{//d}' >"$OUTFILE" || echo "cannot write OUTFILE" >&3
        }
    } 3>&1
)
if [ -n "$failed" ]; then
    printf '%s\n' "$failed" >&2
    exit 2
fi

# Search only the header, which ends at the first empty line. SpamAssassin inserts its own fields at
# the beginning.
score=$(sed -n -e '/^$/q' \
    -e 's/^X-Spam-Status: [A-Za-z]*, score=\(-\{0,1\}\)0*\([0-9][0-9]*\).*/\1\2/p' "$OUTFILE" |
    head -n 1)
if [ -z "$score" ]; then
    echo "spamd returned no X-Spam-Status field; see add_header in its configuration" >&2
    exit 2
fi
# sh does not support numbers with many digits. Treat more than nine digits as the largest number.
case $score in
-??????????*) score=-999999999 ;;
-*) ;;
??????????*) score=999999999 ;;
esac
if [ "$score" -ge "$reject_from" ]; then
    echo "550 5.7.1 The message looks like spam" >&2
    exit 1
fi
exit 0
