#!/bin/sh
# Reject mail that comes from outside and claims to be from us. Needs nothing but sh.

# Our domain, in lower case.
DOMAIN=example.org

# Our own networks may say so. An address that is not known is not from outside.
case $REMOTEIP in
'' | 127.* | ::1 | 10.* | 192.168.*) exit 0 ;;
esac

lower() {
    printf '%s\n' "$1" | tr '[:upper:]' '[:lower:]'
}

helo=$(lower "$HELO") && sender=$(lower "$SENDER") || exit 2

case $helo in
"$DOMAIN" | *."$DOMAIN")
    echo "550 5.7.1 You are not $DOMAIN" >&2
    exit 1
    ;;
esac

case $sender in
*@"$DOMAIN")
    echo "550 5.7.1 Mail from $DOMAIN is sent by our own servers only" >&2
    exit 1
    ;;
esac

exit 0
