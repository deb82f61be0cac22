package main

import (
	"fmt"
	"math/rand/v2"
	"strconv"

	"github.com/capsule-run/capsule/spec/fault"
)

// modeExecutionID accepts the textual form of RFC 9562 in lower case, so that one
// execution has one name.
func modeExecutionID(i *invocation, v string) error {
	if !isUUID(v) {
		return fault.New(fault.InvalidValue, "", strconv.Quote(v)+" is not a UUID").
			WithHint("Give 8-4-4-4-12 hexadecimal digits in lower case, or leave the flag out.")
	}
	i.id = v
	return nil
}

func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return false
			}
		case c >= '0' && c <= '9', c >= 'a' && c <= 'f':
		default:
			return false
		}
	}
	return true
}

// newUUID is the id of an execution that was refused before the supervisor
// could give it one. The runtime's generator is seeded by the kernel and, unlike
// crypto/rand, costs nothing at start.
func newUUID() string {
	hi, lo := rand.Uint64(), rand.Uint64()
	hi = hi&^0xf000 | 0x4000         // version 4
	lo = lo&^(3<<62) | uint64(2)<<62 // variant 10
	return fmt.Sprintf("%08x-%04x-%04x-%04x-%012x", hi>>32, hi>>16&0xffff, hi&0xffff, lo>>48, lo&(1<<48-1))
}
