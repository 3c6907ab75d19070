/*
 * riscv32: write(1, "qus-probe riscv32\n", length), exit(42).
 * ecall with the number in a7, arguments in a0-a2 (QEMU linux-user/riscv/cpu_loop.c);
 * write is 64, exit is 93 (linux-user/riscv/syscall.tbl).
 */
        .text
        jal     a1, code                /* a1 = msg */
msg:    .ascii  "qus-probe riscv32\n"
        .set    length, . - msg
        .balign 4, 0                    /* filled as data: gas takes code to be aligned */
code:   li      a7, 64                  /* write */
        li      a0, 1
        li      a2, length
        ecall
        li      a7, 93                  /* exit */
        li      a0, 42
        ecall
