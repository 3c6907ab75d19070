/*
 * hexagon: write(1, "qus-probe hexagon\n", length), exit(42).
 * trap0(#1) with the number in r6, arguments in r0-r2 (QEMU linux-user/hexagon/cpu_loop.c);
 * write is 64, exit is 93 (linux-user/hexagon/syscall.tbl).
 */
        .text
        call    code                    /* r31 = msg */
msg:    .ascii  "qus-probe hexagon\n"
        .balign 4
code:   r6 = #64                        /* write */
        r0 = #1
        r1 = r31
        r2 = #18                        /* length of msg: llvm-mc would leave it to a linker */
        trap0(#1)
        r6 = #93                        /* exit */
        r0 = #42
        trap0(#1)
