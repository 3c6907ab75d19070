/*
 * or1k: write(1, "qus-probe or1k\n", length), exit(42).
 * l.sys 1 with the number in r11, arguments in r3-r5 (QEMU linux-user/openrisc/cpu_loop.c);
 * write is 64, exit is 93 (linux-user/openrisc/syscall.tbl).
 */
        .text
        l.ori   r11, r0, 64             /* write */
        l.ori   r3, r0, 1
        l.jal   here                    /* r9 = here, past the delay slot */
        l.ori   r5, r0, end - msg
here:   l.addi  r4, r9, msg - here
        l.sys   1
        l.ori   r11, r0, 93             /* exit */
        l.ori   r3, r0, 42
        l.sys   1
msg:    .ascii  "qus-probe or1k\n"
end:
