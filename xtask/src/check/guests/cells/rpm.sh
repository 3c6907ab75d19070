set -e
cat > tree.spec <<'S'
%global __os_install_post %{nil}
%global debug_package %{nil}
Name: tree
Version: 1
Release: 1
Summary: A test
License: none
%description
A test.
%install
mkdir -p %{buildroot}/opt/tree
cp /bin/true %{buildroot}/opt/tree/program
echo text > %{buildroot}/opt/tree/file
%files
%caps(cap_net_raw=ep) /opt/tree/program
%attr(640, root, nobody) /opt/tree/file
%post
echo installed > /opt/tree/log
S
rpmbuild --define "_topdir $PWD/build" -bb tree.spec > log 2>&1
package=$(find build/RPMS -name 'tree-*.rpm')
rpm -K --nosignature "$package"
rpm --dbpath "$PWD/base" --initdb
rpm --dbpath "$PWD/base" --nodeps -i "$package"
test "$(getcap /opt/tree/program)" = "/opt/tree/program cap_net_raw=ep"
test "$(cat /opt/tree/log)" = installed
rpm --dbpath "$PWD/base" --nodeps -V tree
echo other > /opt/tree/file
if rpm --dbpath "$PWD/base" --nodeps -V tree > changed; then exit 1; fi
grep -q '5.* /opt/tree/file' changed
rpm --dbpath "$PWD/base" -e tree
if test -e /opt/tree/program; then exit 1; fi
