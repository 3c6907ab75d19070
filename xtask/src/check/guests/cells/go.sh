set -e
export GOTOOLCHAIN=local GOPROXY=off GOFLAGS=-mod=mod GOCACHE="$PWD/cache"
mkdir sums
cd sums
go mod init sums 2> /dev/null
cat > main.go <<'G'
package main

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
)

func sums(parts int64) int64 {
	var group sync.WaitGroup
	results := make(chan int64, parts)
	for part := int64(0); part < parts; part++ {
		group.Add(1)
		go func(part int64) {
			defer group.Done()
			total := int64(0)
			for i := int64(0); i < 1000; i++ {
				total += part * i
			}
			runtime.Gosched()
			results <- total
		}(part)
	}
	group.Wait()
	close(results)
	all := int64(0)
	for total := range results {
		all += total
	}
	return all
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go func() {
		connection, _ := listener.Accept()
		fmt.Fprint(connection, sums(200))
		connection.Close()
	}()
	connection, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		panic(err)
	}
	answer, _ := io.ReadAll(connection)
	runtime.GC()
	fmt.Println(string(answer))
}
G
cat > main_test.go <<'G'
package main

import "testing"

func TestSums(t *testing.T) {
	if sums(3) != 1498500 {
		t.Fatal(sums(3))
	}
}
G
go build -o program .
for _ in 1 2 3 4 5; do test "$(./program)" = 9940050000; done
go test . | grep -q '^ok'
