#!/bin/sh
# Sign the mail that leaves us with DKIM, and no other.
#
# Needs:  dkimsign (Debian: python3-dkim), and a key that the filter's user can read.
# Use:    --strict -c {/usr/local/bin/dkim-sign.sh example.org mail2026 /etc/postfix/dkim.pem}
#         or where only our own users can send, as on a submission service, from any address:
#         --strict -c {/usr/local/bin/dkim-sign.sh example.org mail2026 /etc/postfix/dkim.pem '*'}
# Down:   dkimsign is no server. If it fails, so does this: 451, the sender tries again later.
#
# The key, and its other half for the DNS (mail2026._domainkey.example.org), are made by
#     dknewkey mail2026
# Put it last in a chain: what changes the message later breaks the signature.

domain=$1
selector=$2
key=$3
# Shell patterns for REMOTEIP. An address that is not known is not ours.
networks=${4:-127.* ::1 10.* 192.168.*}

if [ -z "$domain" ] || [ -z "$selector" ] || ! [ -r "$key" ]; then
    echo "dkim-sign.sh: give our domain, a selector and a key that can be read," \
        "not '$domain' '$selector' '$key'" >&2
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

dkimsign --hcanon relaxed --bcanon relaxed "$selector" "$domain" "$key" <"$EMAIL" >"$OUTFILE" || {
    echo "dkimsign ended with status $?" >&2
    exit 2
}
# dkimsign also says 0 when it could not sign.
case $(head -n 1 "$OUTFILE") in
DKIM-Signature:*) ;;
*)
    echo "dkimsign has not signed the message" >&2
    exit 2
    ;;
esac
message=$(wc -c <"$EMAIL") && written=$(wc -c <"$OUTFILE") || exit 2
if [ "$written" -le "$message" ]; then
    echo "dkimsign has not written the whole message" >&2
    exit 2
fi
exit 0
