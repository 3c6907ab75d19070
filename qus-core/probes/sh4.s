/*
 * sh4, sh4eb: write(1, "qus-probe <target>\n", length), exit(42).
 * trapa #0x10 + the count of arguments, with the number in r3, arguments in r4-r6 (QEMU
 * linux-user/sh4/cpu_loop.c); write is 4, exit is 1 (linux-user/sh4/syscall.tbl).
 */
        .text
        mov     #4, r3                  /* write */
        mov     #1, r4
        mova    msg, r0                 /* mova only loads r0 */
        mov     r0, r5
        mov     #end - msg, r6
        trapa   #0x13
        mov     #1, r3                  /* exit */
        mov     #42, r4
        trapa   #0x11
        .balign 4                       /* mova counts in words */
msg:    .ascii  "qus-probe sh4"
        .ifdef  BIG
        .ascii  "eb"
        .endif
        .ascii  "\n"
end:
