package attack

// hasInt80 tells whether the machine has the system calls of i386 too.
const hasInt80 = true

// int80 makes a system call by i386's numbers.
func int80(nr, a, b, c uintptr) uintptr
