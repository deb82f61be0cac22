package main

import (
	"math/bits"

	"golang.org/x/sys/unix"
)

// hostBudget is the part of the host's memory that executions get unless a flag
// says otherwise, in bytes; 0 when it cannot be known.
func hostBudget() int64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	high, total := bits.Mul64(uint64(info.Totalram), uint64(info.Unit))
	if high != 0 || total > 1<<62 {
		return 0
	}
	return int64(total / 100 * budgetPercent)
}
