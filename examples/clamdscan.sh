#!/bin/sh
# Reject messages with a virus. Needs a running clamd; use it with postprox -r.
#
# A message larger than StreamMaxLength in clamd.conf counts as a failure of the scan.

# From a file descriptor, because clamd runs as another user who may not open the file.
found=$(clamdscan --no-summary --stdout - <"$EMAIL")
status=$?

case $status in
0)
    exit 0
    ;;
1)
    # "stream: Eicar-Signature FOUND"
    name=${found##*: }
    echo "550 5.7.1 The message contains a virus: ${name% FOUND}" >&2
    exit 1
    ;;
*)
    echo "clamdscan ended with status $status: $found" >&2
    exit 2
    ;;
esac
