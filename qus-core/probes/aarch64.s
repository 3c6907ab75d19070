/*
 * aarch64, aarch64_be: write(1, "qus-probe <target>\n", length), exit(42).
 * svc #0 with the number in x8, arguments in x0-x2 (QEMU linux-user/aarch64/cpu_loop.c);
 * write is 64, exit is 93 (linux-user/aarch64/syscall_64.tbl).
 */
        .text
        mov     x8, #64                 /* write */
        mov     x0, #1
        adr     x1, msg
        mov     x2, #end - msg
        svc     #0
        mov     x8, #93                 /* exit */
        mov     x0, #42
        svc     #0
msg:    .ascii  "qus-probe aarch64"
        .ifdef  BIG
        .ascii  "_be"
        .endif
        .ascii  "\n"
end:
