/*
 * ppc: write(1, "qus-probe ppc\n", length), exit(42).
 * sc with the number in r0, arguments in r3-r5 (QEMU linux-user/ppc/cpu_loop.c);
 * write is 4, exit is 1 (linux-user/ppc/syscall.tbl).
 */
        .text
        li      0, 4                    /* write */
        li      3, 1
        bcl     20, 31, here            /* lr = here */
here:   mflr    4
        addi    4, 4, msg - here
        li      5, end - msg
        sc
        li      0, 1                    /* exit */
        li      3, 42
        sc
msg:    .ascii  "qus-probe ppc\n"
end:
