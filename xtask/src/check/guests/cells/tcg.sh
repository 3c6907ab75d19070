set -e
mkdir -p qemu/tests/tcg
for file in *; do
    [ $file = qemu ] || mv $file qemu/tests/tcg
done
ln -s qemu/tests/tcg/Makefile.target Makefile
cat > config-target.mak <<M
TARGET_NAME=$TARGET
TARGET=$TARGET-linux-user
SRC_PATH=/tmp/cell/qemu
QEMU=/tmp/cell/emulated
CC=$CC
BUILD_STATIC=y
M
# The tests expect QEMU's own default processor.
case $TARGET in aarch64 | riscv64) export QEMU_CPU=max ;; esac
# They choose others by an option of the emulator, which the handler starts here.
cat > emulated <<'S'
#!/bin/sh
while [ "$1" = -cpu ]; do
    export QEMU_CPU="$2"
    shift 2
done
program=$1
shift
exec "./$program" "$@"
S
chmod +x emulated
# What a compiler refuses says nothing about the emulator, but most tests have to run.
make -k -j2 all > build.log 2>&1 || true
make -k run > log 2>&1 || true
failed=$(grep -o 'run-[^]]*\] Error [0-9]*' log | tr -d ']' | tr '\n' ',')
refused=$(grep -o '^make: \*\*\* \[.*\] Error' build.log | sed 's/.*: //; s/\].*//' | tr '\n' ' ')
ran=$(grep -c '^  TEST' log) || true
rm log
echo "ran $ran, failed: $failed not compiled: $refused"
test -z "$failed"
test "$ran" -ge 25
