/*
 * mipsn32, mipsn32el: write(1, "qus-probe <target>\n", length), exit(42).
 * n32 ABI: syscall with the number in v0 ($2), arguments in a0-a2 ($4-$6) (QEMU
 * linux-user/mips/cpu_loop.c); write is 6001, exit is 6058 (linux-user/mips64/syscall_n32.tbl).
 */
        .set    noreorder
        .text
        bal     here                    /* $31 = here, past the delay slot */
        li      $2, 6001                /* write */
here:   addiu   $5, $31, msg - here
        li      $4, 1
        li      $6, end - msg
        syscall
        li      $2, 6058                /* exit */
        li      $4, 42
        syscall
msg:    .ascii  "qus-probe mipsn32"
        .ifdef  LITTLE
        .ascii  "el"
        .endif
        .ascii  "\n"
end:
