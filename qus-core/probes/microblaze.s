/*
 * microblaze, microblazeel: write(1, "qus-probe <target>\n", length), exit(42).
 * brki r14, 0x8 with the number in r12, arguments in r5-r7 (QEMU
 * linux-user/microblaze/cpu_loop.c); write is 4, exit is 1 (.../syscall.tbl).
 *
 * Debian has no microblaze assembler: the words are encoded by hand after the MicroBlaze
 * Processor Reference Guide (AMD UG984). Type B: opcode, rD << 21, rA << 16, immediate.
 */
        .text
        .4byte  0x31800004              /* addik r12, r0, 4: write */
        .4byte  0x30a00001              /* addik r5, r0, 1 */
here:   .4byte  0x94c08000              /* mfs   r6, rpc: r6 = here */
        .4byte  0x30c60000 + msg - here /* addik r6, r6, msg - here */
        .4byte  0x30e00000 + end - msg  /* addik r7, r0, end - msg */
        .4byte  0xb9cc0008              /* brki  r14, 0x8 */
        .4byte  0x31800001              /* addik r12, r0, 1: exit */
        .4byte  0x30a0002a              /* addik r5, r0, 42 */
        .4byte  0xb9cc0008              /* brki  r14, 0x8 */
msg:    .ascii  "qus-probe microblaze"
        .ifdef  LITTLE
        .ascii  "el"
        .endif
        .ascii  "\n"
end:
