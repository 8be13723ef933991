#!/bin/sh
# Add a disclaimer to the mail that leaves us.
#
# Needs:  altermime (Debian: altermime), and a text file.
# Use:    --strict -c {/usr/local/bin/disclaimer.sh example.org /etc/postfix/disclaimer.txt}
#         or where only our own users can send, as on a submission service, from any address:
#         --strict -c {/usr/local/bin/disclaimer.sh example.org /etc/postfix/disclaimer.txt '*'}
# Down:   altermime is no server. If it fails, so does this: 451, the sender tries again later.
#
# Only mail from our domain and from our networks is changed. A message that is signed or encrypted
# (multipart/signed, base64 text) is left as it is by altermime.

domain=$1
text=$2
# Shell patterns for REMOTEIP.
networks=${3:-127.* ::1 10.* 192.168.*}

if [ -z "$domain" ] || ! [ -s "$text" ] || ! [ -r "$text" ]; then
    echo "disclaimer.sh: give our domain and a file that can be read, not '$domain' '$text'" >&2
    exit 2
fi

ours() {
    set -f
    for pattern in $networks; do
        # shellcheck disable=SC2254 # it is a pattern
        case $REMOTEIP in $pattern) return 0 ;; esac
    done
    return 1
}

sender=$(printf '%s\n' "$SENDER" | tr '[:upper:]' '[:lower:]') || exit 2
case $sender in
*"@$domain") ours || exit 0 ;;
*) exit 0 ;;
esac

altermime --input=- --disclaimer="$text" --htmltoo <"$EMAIL" >"$OUTFILE" || {
    echo "altermime ended with status $?" >&2
    exit 2
}
# altermime also says 0 when the disk is full: what it wrote must be the message, or more.
message=$(wc -c <"$EMAIL") && added=$(wc -c <"$text") && written=$(wc -c <"$OUTFILE") || exit 2
if [ "$written" -lt $((message + added)) ] && ! cmp -s "$EMAIL" "$OUTFILE"; then
    echo "altermime has not written the whole message" >&2
    exit 2
fi
exit 0
