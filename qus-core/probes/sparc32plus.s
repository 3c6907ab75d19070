/*
 * sparc32plus: write(1, "qus-probe sparc32plus\n", length), exit(42).
 * ta 0x10 with the number in g1, arguments in o0-o2 (QEMU linux-user/sparc/cpu_loop.c);
 * write is 4, exit is 1 (linux-user/sparc/syscall.tbl).
 */
        .text
        mov     4, %g1                  /* write */
        mov     1, %o0
here:   rd      %pc, %o1                /* %o1 = here */
        add     %o1, msg - here, %o1
        mov     end - msg, %o2
        ta      0x10
        mov     1, %g1                  /* exit */
        mov     42, %o0
        ta      0x10
msg:    .ascii  "qus-probe sparc32plus\n"
end:
