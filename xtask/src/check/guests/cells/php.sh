set -e
cat > test.php <<'P'
<?php
function check(bool $ok, string $what) { if (!$ok) { fwrite(STDERR, "$what\n"); exit(1); } }
$counts = [];
for ($i = 0; $i < 100000; $i++) { $counts[md5((string) ($i % 100))] = ($counts[md5((string) ($i % 100))] ?? 0) + 1; }
check(count($counts) === 100 && array_sum($counts) === 100000, 'arrays');
check(json_decode(json_encode(['a' => [1, 2.5, null]]), true) === ['a' => [1, 2.5, null]], 'json');
check(preg_replace_callback('/\d+/', fn ($m) => $m[0] * 2, 'a1b22') === 'a2b44', 'regular expressions');
function numbers() { for ($i = 1; $i <= 5; $i++) { yield $i; } }
check(array_sum(iterator_to_array(numbers())) === 15, 'generators');
try { intdiv(1, 0); check(false, 'exception'); } catch (DivisionByZeroError $expected) {}
$process = proc_open(['/bin/sh', '-c', 'cat; exit 3'], [['pipe', 'r'], ['pipe', 'w']], $pipes);
fwrite($pipes[0], 'text');
fclose($pipes[0]);
check(stream_get_contents($pipes[1]) === 'text' && proc_close($process) === 3, 'process');
echo hash('sha256', serialize(range(1, 1000))) === hash('sha256', serialize(range(1, 1000))) ? "done\n" : "";
P
test "$(php test.php)" = "done"
php -S 127.0.0.1:8765 -t . > log 2>&1 & server=$!
for _ in $(seq 50); do
    answer=$(php -r 'echo @file_get_contents("http://127.0.0.1:8765/test.php");') && test -n "$answer" && break
    sleep 0.2
done
kill $server
test "$answer" = "done"
