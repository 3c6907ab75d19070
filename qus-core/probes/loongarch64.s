/*
 * loongarch64: write(1, "qus-probe loongarch64\n", length), exit(42).
 * syscall 0 with the number in a7, arguments in a0-a2 (QEMU
 * linux-user/loongarch64/cpu_loop.c); write is 64, exit is 93 (.../syscall.tbl).
 */
        .text
        bl      code                    /* $ra = msg */
msg:    .ascii  "qus-probe loongarch64\n"
        .balign 4
code:   li.w    $a7, 64                 /* write */
        li.w    $a0, 1
        move    $a1, $ra
        li.w    $a2, 22                 /* length of msg: llvm-mc takes no end - msg here */
        syscall 0
        li.w    $a7, 93                 /* exit */
        li.w    $a0, 42
        syscall 0
