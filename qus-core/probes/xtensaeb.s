/*
 * xtensaeb: write(1, "qus-probe xtensaeb\n", length), exit(42).
 * syscall with the number in a2, arguments in a6, a3, a4 (QEMU linux-user/xtensa/cpu_loop.c);
 * write is 13, exit is 118 (linux-user/xtensa/syscall.tbl).
 *
 * Debian has no big-endian xtensa assembler: the bytes are encoded by hand after the Xtensa
 * ISA reference manual. RRI8, big-endian: op0 and t, s and r, the low byte of the immediate.
 */
        .text
        .byte   0x50, 0x00, 0x00        /* call0 here: a0 = link */
link:   .byte   0                       /* call0 counts in words */
here:   .byte   0x23, 0x0c, msg - link  /* addi  a3, a0, msg - link */
        .byte   0x22, 0x0a, 13          /* movi  a2, 13: write */
        .byte   0x26, 0x0a, 1           /* movi  a6, 1 */
        .byte   0x24, 0x0a, end - msg   /* movi  a4, end - msg */
        .byte   0x00, 0x05, 0x00        /* syscall */
        .byte   0x22, 0x0a, 118         /* movi  a2, 118: exit */
        .byte   0x26, 0x0a, 42          /* movi  a6, 42 */
        .byte   0x00, 0x05, 0x00        /* syscall */
msg:    .ascii  "qus-probe xtensaeb\n"
end:
