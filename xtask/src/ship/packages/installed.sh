#!/bin/sh
# Registers the emulators where systemd runs: not in containers, and not while an image is made.
set -e

# On systems whose /lib and /usr/lib are not one directory, it is in /lib.
binfmt=/lib/systemd/systemd-binfmt
if [ -d /run/systemd/system ] && [ -x $binfmt ]; then
    cd /usr/lib/binfmt.d
    # The names of files, because without them it would remove all handlers of others.
    $binfmt qus-*.conf || echo 'warning: the emulators of qus are not registered' >&2
fi
