#!/bin/sh
# Mark spam with SpamAssassin's header fields, and reject what is certainly spam.
#
# Needs:  a running spamd, and spamc (Debian: spamd, spamc).
# Use:    --strict -c /usr/local/bin/spamassassin.sh
#         or to reject from 10 points, with options for spamc:
#         --strict -c {/usr/local/bin/spamassassin.sh 10 -U /run/spamd.sock}
# Down:   spamc ends with a status of its own, and this with 2: 451, the sender tries again later.
#
# SpamAssassin learns the envelope's sender from a field X-Envelope-From, which is taken out again.

# Points from which a message is rejected, a whole number; below, it is only marked.
reject_from=${1:-15}
[ "$#" -eq 0 ] || shift
# Larger messages pass without a look, as spam is small. In octets.
largest=512000

case $reject_from in
# Of very many digits sh makes no number; then nothing would be rejected.
*[!0-9]* | ?????*)
    echo "spamassassin.sh: '$reject_from': give a whole number of points" >&2
    exit 2
    ;;
esac

# A line break in the sender would end the field, and an empty line the header.
sender=$SENDER
case $sender in
*[[:cntrl:]]*) sender=$(printf '%s' "$sender" | LC_ALL=C tr '[:cntrl:]' '?') || exit 2 ;;
esac

size=$(wc -c <"$EMAIL") || exit 2
[ "$size" -le "$largest" ] || exit 0

# Whatever fails in the pipe says so on descriptor 3: a message cut short must not look like one
# that was marked. -x: fail if spamd does not answer, rather than hand the message back unseen.
failed=$(
    {
        {
            # 141 is the death of SIGPIPE: spamc has ended first, and says why.
            printf 'X-Envelope-From: %s\n' "$sender" && cat "$EMAIL" ||
                [ $? -eq 141 ] || echo "cannot read EMAIL" >&3
        } | {
            spamc -x -s 100000000 "$@" || case $? in
                # 70: it does not find the socket.
                69 | 70) echo "spamc has no answer from spamd: is it running?" >&3 ;;
                *) echo "spamc ended with status $?" >&3 ;;
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

# In the header, that is, before the first empty line; SpamAssassin's own fields are the first.
score=$(sed -n -e '/^$/q' \
    -e 's/^X-Spam-Status: [A-Za-z]*, score=\(-\{0,1\}\)0*\([0-9][0-9]*\).*/\1\2/p' "$OUTFILE" |
    head -n 1)
if [ -z "$score" ]; then
    echo "spamd has answered without an X-Spam-Status field: see add_header in its configuration" >&2
    exit 2
fi
# sh makes no number of many digits. More than nine digits count as the largest number.
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
