#!/bin/sh
# Reject mail that comes from outside and claims to be from us.
#
# Needs:  nothing but sh.
# Use:    --strict -c {/usr/local/bin/forged-sender.sh example.org}
# Down:   there is no scanner.
#
# Users who send through us from elsewhere come from outside, too: give them a submission service
# without this filter.

domain=$1
if [ -z "$domain" ]; then
    echo "forged-sender.sh: give our domain" >&2
    exit 2
fi

# Our own networks may say so. An address that is not known is not from outside.
case $REMOTEIP in
'' | 127.* | ::1 | 10.* | 192.168.*) exit 0 ;;
esac

lower() {
    printf '%s\n' "$1" | tr '[:upper:]' '[:lower:]'
}

helo=$(lower "$HELO") && sender=$(lower "$SENDER") || exit 2

case $helo in
"$domain" | *."$domain")
    echo "550 5.7.1 You are not $domain" >&2
    exit 1
    ;;
esac

case $sender in
*@"$domain")
    echo "550 5.7.1 Mail from $domain is sent by our own servers only" >&2
    exit 1
    ;;
esac

exit 0
