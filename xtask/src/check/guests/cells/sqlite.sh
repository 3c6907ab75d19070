set -e
seq 20000 | awk 'BEGIN { print "PRAGMA journal_mode=WAL; CREATE TABLE t(n INTEGER, s TEXT); CREATE INDEX i ON t(s); BEGIN;" }
    { printf "INSERT INTO t VALUES(%d, \047row %d\047);\n", $1, $1 * 7919 % 20011 } END { print "COMMIT;" }' | sqlite3 base > /dev/null
test "$(sqlite3 base 'SELECT count(*), sum(n) FROM t')" = "20000|200010000"
writer() { for _ in $(seq 40); do sqlite3 -cmd '.timeout 60000' base "INSERT INTO t VALUES($1, 'writer')" || exit 1; done; }
writer 1 & first=$!
writer 2 & second=$!
wait $first
wait $second
test "$(sqlite3 base "SELECT n, count(*) FROM t WHERE s = 'writer' GROUP BY n" | tr '\n' ' ')" = "1|40 2|40 "
test "$(sqlite3 base 'PRAGMA integrity_check')" = ok
