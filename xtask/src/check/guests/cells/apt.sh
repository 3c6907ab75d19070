set -e
# man-db, which is installed, has triggers of other packages' manual pages.
apt-get install --yes --no-install-recommends hello > log
grep -q 'Processing triggers for man-db' log
test "$(hello --greeting=works)" = works
apt-get remove --yes hello >> log
if test -e /usr/bin/hello; then exit 1; fi
test -z "$(dpkg --audit)"
dpkg --verify coreutils
dpkg --configure --pending
