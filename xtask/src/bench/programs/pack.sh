# Packs and unpacks a directory of the system, whose files are the same in each run.
set -e
cd /usr/lib/python3*
tar --sort=name -cf - asyncio email importlib json xml | xz -2 --threads=1 > /tmp/packed.tar.xz
sha256sum < /tmp/packed.tar.xz
xz -dc /tmp/packed.tar.xz | tar -tf - | wc -l
