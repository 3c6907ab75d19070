set -e
cat > test.rb <<'R'
require 'json'
require 'socket'
raise 'json' unless JSON.parse(JSON.generate('a' => [1, 2.5, nil])) == { 'a' => [1, 2.5, nil] }
sums = 8.times.map { |n| Thread.new { (1..20_000).sum * n } }.map(&:value)
raise 'threads' unless sums.sum == 28 * 200_010_000
reader, writer = IO.pipe
child = fork { writer.puts 'from the child'; exit!(3) }
writer.close
raise 'pipe' unless reader.read == "from the child\n"
raise 'status' unless Process.wait2(child)[1].exitstatus == 3
server = TCPServer.new('127.0.0.1', 0)
Thread.new { server.accept.tap { |socket| socket.puts(socket.gets.upcase) }.close }
socket = TCPSocket.new('127.0.0.1', server.addr[1])
socket.puts 'text'
raise 'socket' unless socket.gets == "TEXT\n"
raise 'signal' unless Signal.trap('USR1') { $seen = true } && Process.kill('USR1', Process.pid) && sleep(0.1) && $seen
raise 'big' unless (2**200 % 1_000_007) == 2.pow(200, 1_000_007)
GC.start
raise 'command' unless `echo "$((6 * 7))"` == "42\n"
R
ruby test.rb
