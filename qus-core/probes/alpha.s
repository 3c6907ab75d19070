/*
 * alpha: write(1, "qus-probe alpha\n", length), exit(42).
 * callsys with the number in v0 ($0), arguments in a0-a2 ($16-$18) (QEMU
 * linux-user/alpha/cpu_loop.c); write is 4, exit is 1 (linux-user/alpha/syscall.tbl).
 */
        .set    noat
        .text
        lda     $0, 4($31)              /* write */
        lda     $16, 1($31)
        br      $17, here               /* $17 = here */
here:   lda     $17, msg - here($17)
        lda     $18, end - msg($31)
        callsys
        lda     $0, 1($31)              /* exit */
        lda     $16, 42($31)
        callsys
msg:    .ascii  "qus-probe alpha\n"
end:
