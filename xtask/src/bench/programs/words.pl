# Text is made, split by regular expressions, counted in a hash, and sorted.
use strict;
use warnings;

my @syllables = qw(ka lo mi nu pe ra si to ve zu);
my ($state, $text) = (42, '');
for (1 .. 12000) {
    $state = ($state * 1103515245 + 12345) % 2147483648;
    $text .= join('', map { $syllables[($state >> $_ * 4) % 10] } 1 .. 2 + $state % 3);
    $text .= $state % 11 ? ' ' : ".\n";
}
my %count;
for my $line (split /\n/, $text) {
    $count{lc $_}++ for $line =~ /(\w+)/g;
}
(my $changed = $text) =~ s/(\w)(\w+)/uc($1) . reverse($2)/ge;
my @most = sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count;
printf "%d words, %d different, checksum %d\n", scalar(() = $text =~ /\w+/g), scalar @most, unpack('%32C*', $changed);
print "$_ $count{$_}\n" for @most[0 .. 9];
