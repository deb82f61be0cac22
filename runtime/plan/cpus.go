package plan

import (
	"strconv"
	"strings"
)

// words fills a mask up to whole words of the kernel.
func words(mask []byte) []byte { return append(mask, make([]byte, (8-len(mask)%8)%8)...) }

// CPUs is a list such as 0-3,7 as a mask whose first bit of the first byte is for 0: that of
// sched_setaffinity(2) on a machine with the low byte first, and of systemd.
func CPUs(list string) (mask []byte, ok bool) {
	for part := range strings.SplitSeq(list, ",") {
		from, to, many := strings.Cut(strings.TrimSpace(part), "-")
		if !many {
			to = from
		}
		first, err := strconv.ParseUint(from, 10, 13)
		last, bad := strconv.ParseUint(to, 10, 13)
		if err != nil || bad != nil || last < first {
			return nil, false
		}
		for n := first; n <= last; n++ {
			for int(n/8) >= len(mask) {
				mask = append(mask, 0)
			}
			mask[n/8] |= 1 << (n % 8)
		}
	}
	return mask, true
}
