set -e
sed 's/^deb /deb-src /' /etc/apt/sources.list > /etc/apt/sources.list.d/source.list
# A mirror may be behind, most often for sid.
apt-get -o Acquire::Check-Valid-Until=false update > log 2>&1
apt-get source --tar-only zlib lua5.4 sqlite3 > log 2>&1
mkdir zlib lua sqlite
tar -xf zlib_*.orig.tar.* -C zlib --strip-components 1
tar -xf lua5.4_*.orig.tar.* -C lua --strip-components 1
tar -xf sqlite3_*.orig.tar.* -C sqlite --strip-components 1
(cd zlib && ./configure > ../log && make -j2 test > ../log 2>&1)
make -C lua -j2 linux > log 2>&1
cat > test.lua <<'L'
local words, text = {}, string.rep("one two ", 5000)
for word in text:gmatch("%a+") do words[word] = (words[word] or 0) + 1 end
assert(words.one == 5000 and words.two == 5000)
local numbers = coroutine.wrap(function() for i = 1, 100 do coroutine.yield(i) end end)
local sum = 0
for i = 1, 100 do sum = sum + numbers() end
assert(sum == 5050 and 7 // 2 == 3 and 1 << 62 == 4611686018427387904)
assert(not pcall(error, {}))
table.sort(words)
collectgarbage()
print(string.format("%.10f", math.pi), #text)
L
test "$(lua/src/lua test.lua)" = "3.1415926536	40000"
# Its tests are scripts for an interpreter of Tcl that has SQLite in it.
cd sqlite
CFLAGS=-O0 ./configure > ../log 2>&1
make -j2 testfixture > ../log 2>&1
for name in select1 insert trans wal pragma lock thread1 vacuum; do
    ./testfixture test/$name.test > ../log 2>&1
    grep -q '^0 errors out of [1-9]' ../log
done
