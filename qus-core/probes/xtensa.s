/*
 * xtensa: write(1, "qus-probe xtensa\n", length), exit(42).
 * syscall with the number in a2, arguments in a6, a3, a4 (QEMU linux-user/xtensa/cpu_loop.c);
 * write is 13, exit is 118 (linux-user/xtensa/syscall.tbl).
 */
        .text
        .begin  no-transform            /* no literals before the code */
        call0   code                    /* a0 = msg */
msg:    .ascii  "qus-probe xtensa\n"
        .set    length, . - msg
        .balign 4                       /* call0 counts in words */
code:   movi    a2, 13                  /* write */
        movi    a6, 1
        mov     a3, a0
        movi    a4, length
        syscall
        movi    a2, 118                 /* exit */
        movi    a6, 42
        syscall
        .end    no-transform
