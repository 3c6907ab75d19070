/*
 * arm, armeb: write(1, "qus-probe <target>\n", length), exit(42).
 * EABI: svc #0 with the number in r7, arguments in r0-r2 (QEMU linux-user/arm/cpu_loop.c);
 * write is 4, exit is 1 (linux-user/arm/syscall.tbl).
 */
        .text
        mov     r7, #4                  /* write */
        mov     r0, #1
        adr     r1, msg
        mov     r2, #end - msg
        svc     #0
        mov     r7, #1                  /* exit */
        mov     r0, #42
        svc     #0
msg:    .ascii  "qus-probe arm"
        .ifdef  BIG
        .ascii  "eb"
        .endif
        .ascii  "\n"
end:
