/*
 * sparc: write(1, "qus-probe sparc\n", length), exit(42).
 * ta 0x10 with the number in g1, arguments in o0-o2 (QEMU linux-user/sparc/cpu_loop.c);
 * write is 4, exit is 1 (linux-user/sparc/syscall.tbl).
 */
        .text
start:  call    here                    /* %o7 = start */
        mov     4, %g1                  /* write, set in the delay slot */
here:   mov     1, %o0
        add     %o7, msg - start, %o1
        mov     end - msg, %o2
        ta      0x10
        mov     1, %g1                  /* exit */
        mov     42, %o0
        ta      0x10
msg:    .ascii  "qus-probe sparc\n"
end:
