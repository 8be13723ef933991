#!/bin/sh
# Reject messages with a virus, which clamd detects.
#
# Needs:  clamdscan and a running clamd (Debian: clamdscan, clamav-daemon).
# Use:    --strict -c /usr/local/bin/clamav.sh
#         or with another configuration file:
#         --strict -c {/usr/local/bin/clamav.sh /etc/clamav/mail.conf}
# Down:   clamdscan and the filter exit with status 2 (451). The sender tries again later.
#
# clamdscan passes the open file to clamd, so clamd may run as another user. For a message above its
# limits (MaxScanSize, MaxFileSize), clamd returns "OK", unless its configuration contains
# `AlertExceedsMax yes`.

config=${1:-/etc/clamav/clamd.conf}

# If the path is, for example, a directory, clamd returns "OK".
if ! [ -f "$EMAIL" ]; then
    echo "clamav.sh: EMAIL is not a file" >&2
    exit 2
fi

found=$(clamdscan --config-file="$config" --no-summary --stdout - <"$EMAIL" 2>&1)
status=$?

case $status in
0)
    exit 0
    ;;
1)
    # The line with the virus name ends with "FOUND", for example "stream: Eicar-Signature FOUND".
    name=$(printf '%s\n' "$found" | sed -n 's/.*: \(.*\) FOUND$/\1/p' | head -n 1)
    if [ -n "$name" ]; then
        printf '550 5.7.1 The message contains a virus: %s\n' "$name" >&2
        exit 1
    fi
    ;;
esac
printf 'clamdscan exited with status %s: %s\n' "$status" "$found" >&2
exit 2
