set -e
test "$(perl -e 'print join ",", map { $_ ** 2 } 1..5')" = 1,4,9,16,25
test "$(perl -Mthreads -e 'print join ",", map { $_->join } map { my $n = $_; threads->create(sub { $n * 2 }) } 1..8')" = 2,4,6,8,10,12,14,16
test "$(perl -e 'pipe R, W; if (!fork) { close R; print W "from the child"; exit 3 } close W; print <R>; wait; print $? >> 8')" = "from the child3"
perl -MIO::Socket -e '
    my $server = IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1") or die;
    my $port = $server->sockport;
    if (!fork) { my $s = IO::Socket::INET->new("127.0.0.1:$port") or die; print $s "hello\n"; exit }
    my $line = $server->accept->getline;
    $line eq "hello\n" or die "got $line"'
perl -e '$SIG{ALRM} = sub { exit 0 }; alarm 1; sleep 10; exit 1'
perl -MPOSIX -MTime::HiRes -e 'my ($seen, $mask) = 0; $SIG{RTMIN} = sub { $seen++ }; kill SIGRTMIN, $$; exit !($seen == 1)'
