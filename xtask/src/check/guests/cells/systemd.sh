set -e
# It gets a control group of its own, as in a container, and uses /srv, because it hides what is in /tmp.
groups=$(findmnt --noheadings --first-only --types cgroup2 --output TARGET)/qus-$(dpkg --print-architecture)
clean() { [ ! -e "$groups" ] || find "$groups" -depth -type d -exec rmdir {} +; }
clean
mkdir "$groups" 2> /dev/null || { echo "this machine has no cgroup2 that can be written"; exit 77; }
mkdir -p /etc/systemd/system/multi-user.target.wants
cat > /etc/systemd/system/worker.service <<'S'
[Service]
PrivateTmp=yes
PrivateNetwork=yes
ProtectSystem=strict
ReadWritePaths=/srv
ExecStart=/bin/sh -c 'echo started > /srv/started; exec sleep 1000'
ExecStop=/bin/sh -c 'echo stopped > /srv/stopped'
S
ln -s ../worker.service /etc/systemd/system/multi-user.target.wants/
# These are the host's terminals.
ln -s /dev/null /etc/systemd/system/getty.target
ln -sf multi-user.target /etc/systemd/system/default.target
touch log
cat > boot <<'S'
mount --bind log /dev/console
mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs none /run
exec env container=container /lib/systemd/systemd --log-target=console
S
wait_until() { for _ in $(seq 240); do if "$@"; then return; fi; sleep 0.5; done; return 1; }
ended() { ! kill -0 "$init" 2> /dev/null; }
sh -c 'echo $$ > "$1/cgroup.procs" && exec unshare --pid --fork --kill-child --cgroup --mount --mount-proc sh boot' \
    sh "$groups" &
unshare=$!
trap 'kill -KILL $unshare 2> /dev/null && sleep 1; clean' EXIT
wait_until test -s /srv/started
init=$(pgrep -P $unshare)
# As engines do.
kill -s RTMIN+3 "$init"
wait_until ended
test "$(cat /srv/stopped)" = stopped
