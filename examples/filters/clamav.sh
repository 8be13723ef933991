#!/bin/sh
# Reject messages with a virus, asking clamd.
#
# Needs:  a running clamd, and clamdscan (Debian: clamav-daemon, clamdscan).
# Use:    --strict -c /usr/local/bin/clamav.sh
#         or with a configuration of your own:
#         --strict -c {/usr/local/bin/clamav.sh /etc/clamav/mail.conf}
# Down:   clamdscan ends with status 2, and so does this: 451, the sender tries again later.
#
# clamdscan only hands clamd the open file, so it makes no difference that clamd runs as another
# user. A message above clamd's limits (MaxScanSize, MaxFileSize) is "OK" to clamd, unless its
# configuration says `AlertExceedsMax yes`.

config=${1:-/etc/clamav/clamd.conf}

# clamd returns "OK" for a directory, among others.
if ! [ -f "$EMAIL" ]; then
    echo "clamav.sh: EMAIL is no file" >&2
    exit 2
fi

found=$(clamdscan --config-file="$config" --no-summary --stdout - <"$EMAIL" 2>&1)
status=$?

case $status in
0)
    exit 0
    ;;
1)
    # The line that says so ends in "FOUND": "stream: Eicar-Signature FOUND".
    name=$(printf '%s\n' "$found" | sed -n 's/.*: \(.*\) FOUND$/\1/p' | head -n 1)
    if [ -n "$name" ]; then
        printf '550 5.7.1 The message contains a virus: %s\n' "$name" >&2
        exit 1
    fi
    ;;
esac
printf 'clamdscan ended with status %s: %s\n' "$status" "$found" >&2
exit 2
