set -e
useradd --create-home --shell /bin/sh tester
echo 'tester ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/tester
chmod 440 /etc/sudoers.d/tester
test "$(su tester -c 'id -un')" = tester
test "$(su tester -c 'sudo --non-interactive id -u')" = 0
test "$(su tester -c 'sudo --non-interactive --user=nobody id -un')" = nobody
test "$(su tester -c 'sudo --non-interactive sudo --user=tester id -un')" = tester
rm /etc/sudoers.d/tester
if su tester -c 'sudo --non-interactive id -u' 2> message; then exit 1; fi
grep -qi 'password is required\|not allowed\|not in the sudoers' message
