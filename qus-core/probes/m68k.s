/*
 * m68k: write(1, "qus-probe m68k\n", length), exit(42).
 * trap #0 with the number in d0, arguments in d1-d3 (QEMU linux-user/m68k/cpu_loop.c);
 * write is 4, exit is 1 (linux-user/m68k/syscall.tbl).
 */
        .text
        moveq   #4, %d0                 /* write */
        moveq   #1, %d1
        lea     msg(%pc), %a0           /* lea only loads address registers */
        move.l  %a0, %d2
        moveq   #end - msg, %d3
        trap    #0
        moveq   #1, %d0                 /* exit */
        moveq   #42, %d1
        trap    #0
msg:    .ascii  "qus-probe m68k\n"
end:
