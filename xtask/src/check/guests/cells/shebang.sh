set -e
printf '#!/bin/sh\necho "inner $0 $*"\n' > inner
printf '#!%s/inner first\n' "$PWD" > outer
printf '#!%s/outer second\n' "$PWD" > outermost
printf '#!/usr/bin/env -S sh -e\nfalse\necho not reached\n' > ./env
chmod 755 inner outer outermost env
test "$(./inner x)" = "inner ./inner x"
test "$(./outer x)" = "inner $PWD/inner first ./outer x"
test "$(./outermost x)" = "inner $PWD/inner first $PWD/outer second ./outermost x"
if ./env; then exit 1; fi
# The kernel gives up after five of them.
cp outermost one
for name in two three four five; do printf '#!%s/one\n' "$PWD" > "$name"; mv "$name" next; chmod 755 next; mv next one; done
if ./one 2> message; then exit 1; fi
grep -qi 'symbolic links\|loop' message
