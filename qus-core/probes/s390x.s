/*
 * s390x: write(1, "qus-probe s390x\n", length), exit(42).
 * svc with the number as its operand, arguments in r2-r4 (QEMU linux-user/s390x/cpu_loop.c);
 * write is 4, exit is 1 (linux-user/s390x/syscall.tbl).
 */
        .text
        lghi    %r2, 1
        larl    %r3, msg
        lghi    %r4, end - msg
        svc     4                       /* write */
        lghi    %r2, 42
        svc     1                       /* exit */
msg:    .ascii  "qus-probe s390x\n"
end:
