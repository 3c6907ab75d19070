/*
 * x86_64: write(1, "qus-probe x86_64\n", length), exit(42).
 * syscall with the number in rax, arguments in rdi, rsi, rdx (QEMU
 * linux-user/i386/cpu_loop.c); write is 1, exit is 60 (linux-user/x86_64/syscall_64.tbl).
 */
        .text
        movl    $1, %eax                /* write */
        movl    $1, %edi
        leaq    msg(%rip), %rsi
        movl    $end - msg, %edx
        syscall
        movl    $60, %eax               /* exit */
        movl    $42, %edi
        syscall
msg:    .ascii  "qus-probe x86_64\n"
end:
