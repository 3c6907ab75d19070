"""Runs a command without some system calls, as on an old kernel or in a container with a seccomp filter.

forbid.py ERRNO CALL,CALL... COMMAND...
"""

import ctypes
import os
import struct
import sys

# From asm-generic/unistd.h, equal on all architectures since Linux 5.0.
NUMBERS = {"pidfd_send_signal": 424, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "pidfd_open": 434, "clone3": 435}
NUMBERS |= {"close_range": 436, "openat2": 437}
NUMBERS |= {"x86_64": {"memfd_create": 319, "mount": 165}, "aarch64": {"memfd_create": 279, "mount": 40}}[os.uname().machine]

LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2

error, calls, command = int(sys.argv[1]), sys.argv[2].split(","), sys.argv[3:]
numbers = [NUMBERS[call] for call in calls]
filter = [(LOAD, 0, 0, 0)]
filter += [(EQUAL, len(numbers) - index, 0, number) for index, number in enumerate(numbers)]
filter += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, ERRNO | error)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in filter))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(filter), ctypes.addressof(code)))
prctl = ctypes.CDLL(None, use_errno=True).prctl
if prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0):
    sys.exit(f"cannot forbid system calls: {os.strerror(ctypes.get_errno())}")
os.execv(command[0], command)
