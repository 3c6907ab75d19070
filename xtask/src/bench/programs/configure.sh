# What configure scripts do: small programs are compiled, and text is searched and replaced.
set -e
rm -rf checks
mkdir checks
cd checks
: > config.h

check() {
    printf '%s\n' "$3" > check.c
    if gcc $2 -o check.o check.c 2> check.log; then found=1; else found=0; fi
    name=$(printf 'HAVE_%s' "$1" | tr 'a-z./' 'A-Z__')
    echo "#define $name $found" >> config.h
    echo "checking for $1: $found"
}

for header in sys/epoll.h windows.h; do
    check "$header" -E "#include <$header>"
done
check qsort "-c -Werror" '#include <stdlib.h>
void *found(void) { return (void *)qsort; }'
printf 'prefix=@PREFIX@\nversion=@VERSION@\n' > in
sed -e 's|@PREFIX@|/usr|' -e 's|@VERSION@|1.2.3|' in > out
grep -c 1 config.h
gawk '/HAVE/ { print $2, $3 }' config.h | sort
cat out
