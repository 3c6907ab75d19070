set -e
mkdir tree
truncate -s 100M tree/sparse
echo end >> tree/sparse
echo text > tree/file
ln tree/file tree/hard
ln -s file tree/soft
setfattr -n user.colour -v blue tree/file
setfacl -m u:1234:r tree/file
chown 12:34 tree/file
chmod 4751 tree/file
touch -d @1000000000.123456789 tree/file
tar --sparse --xattrs --acls -cf tree.tar tree
test "$(stat -c %s tree.tar)" -lt 100000
mkdir by-tar
tar --sparse --xattrs --acls -xpf tree.tar -C by-tar
cp -a tree by-cp
for copy in by-tar/tree by-cp; do
    cmp tree/sparse "$copy/sparse"
    test "$(stat -c %b "$copy/sparse")" -lt 1000
    test "$(stat -c '%u %g %a %h %y' "$copy/file")" = "12 34 4751 2 $(stat -c %y tree/file)"
    test "$(stat -c %i "$copy/file")" = "$(stat -c %i "$copy/hard")"
    test "$(readlink "$copy/soft")" = file
    test "$(getfattr --only-values -n user.colour "$copy/file")" = blue
    getfacl -cn "$copy/file" | grep -qx user:1234:r--
done
