/*
 * i386: write(1, "qus-probe i386\n", length), exit(42).
 * int $0x80 with the number in eax, arguments in ebx, ecx, edx (QEMU
 * linux-user/i386/cpu_loop.c); write is 4, exit is 1 (linux-user/i386/syscall_32.tbl).
 */
        .text
        movl    $4, %eax                /* write */
        movl    $1, %ebx
        call    here
here:   popl    %ecx                    /* ecx = here */
        addl    $msg - here, %ecx
        movl    $end - msg, %edx
        int     $0x80
        movl    $1, %eax                /* exit */
        movl    $42, %ebx
        int     $0x80
msg:    .ascii  "qus-probe i386\n"
end:
