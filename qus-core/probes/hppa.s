/*
 * hppa: write(1, "qus-probe hppa\n", length), exit(42).
 * A call to the gateway page's 0x100 with the number in r20, arguments in r26-r24 (QEMU
 * linux-user/hppa/cpu_loop.c); write is 4, exit is 1 (linux-user/hppa/syscall.tbl).
 */
        .text
        bl      here, %r25              /* r25 = here + the privilege level, 3 */
        ldi     1, %r26
here:   depi    0, 31, 2, %r25          /* clear the privilege level */
        ldo     msg - here(%r25), %r25
        ldi     end - msg, %r24
        ble     0x100(%sr2, %r0)
        ldi     4, %r20                 /* write, set in the delay slot */
        ldi     42, %r26
        ble     0x100(%sr2, %r0)
        ldi     1, %r20                 /* exit, likewise */
msg:    .ascii  "qus-probe hppa\n"
end:
