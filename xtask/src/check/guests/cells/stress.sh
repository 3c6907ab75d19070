# Each for a second; 2 is a failure, 3 and 4 are what a machine lacks, as for one that runs natively.
stressors="access chmod chown clone close dentry dup epoll eventfd fallocate fcntl fifo flock fork fstat futex get
    getdent hdd inotify kill lease link lockf madvise membarrier memfd mincore mlock mmap mprotect mq mremap msg msync
    nanosleep open pipe poll procfs pthread pty readahead rename sem sem-sysv sendfile set shm shm-sysv sigfd sigpending sigq
    sigsegv sigsuspend sock sockpair splice switch symlink sysinfo tee timer timerfd udp urandom utime vm-splice wait xattr
    yield zero"
mkdir work
for name in $stressors; do
    # It says itself what is wrong.
    timeout 60 stress-ng --temp-path work --$name 1 --timeout 1 --verify > log 2>&1
    status=$?
    case $status in
    0 | 3 | 4) ;;
    *)
        echo "$name, status $status: $(grep -E 'fail|error' log | head -n 2 | cut -c -200)"
        failed=1
        ;;
    esac
done
rm log
test -z "$failed"
