package spec

import (
	"math/bits"
	"strconv"
	"strings"
	"time"

	"github.com/capsule-run/capsule/spec/fault"
)

// units are the suffixes of sizes in lower case. A bare letter is a power of
// 1024, as in docker, ulimit and dd; with B alone behind it a power of 1000,
// as SI has it; with iB one of 1024 by IEC 80000-13.
var units = [...]struct {
	suffix string
	bytes  uint64
}{
	{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}, {"tib", 1 << 40},
	{"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9}, {"tb", 1e12},
	{"k", 1 << 10}, {"m", 1 << 20}, {"g", 1 << 30}, {"t", 1 << 40},
	{"b", 1},
}

// ParseBytes reads a size such as 256, 64K, 1.5GiB or 512MB and gives bytes.
// K, M, G, T and KiB, MiB, GiB, TiB are powers of 1024; KB, MB, GB, TB are
// powers of 1000; case does not matter. A fraction of a byte is dropped.
// Another form or a negative size is E1001, more than 2^63-1 bytes is E1003.
func ParseBytes(s string) (int64, error) {
	number, unit := strings.ToLower(s), uint64(1)
	for _, u := range units {
		if rest, found := strings.CutSuffix(number, u.suffix); found {
			number, unit = rest, u.bytes
			break
		}
	}
	whole, fraction, dot := strings.Cut(number, ".")
	if !digits(whole) || dot && !digits(fraction) || len(fraction) > 9 {
		return 0, badSize(s)
	}
	n, err := strconv.ParseUint(whole, 10, 63)
	high, low := bits.Mul64(n, unit)
	part, carry := low+fractionOf(unit, fraction), uint64(0)
	if part < low {
		carry = 1
	}
	if err != nil || high+carry > 0 || part > 1<<63-1 {
		return 0, fault.New(fault.OutOfRange, "parse size", shown(s)+" is more than 9223372036854775807 bytes")
	}
	return int64(part), nil
}

// fractionOf gives unit times 0.fraction, rounded down. With at most nine
// digits and a unit of at most 2^40 the product needs 70 bits.
func fractionOf(unit uint64, fraction string) uint64 {
	n, divisor := uint64(0), uint64(1)
	for i := 0; i < len(fraction); i++ {
		n, divisor = n*10+uint64(fraction[i]-'0'), divisor*10
	}
	high, low := bits.Mul64(unit, n)
	quotient, _ := bits.Div64(high, low, divisor)
	return quotient
}

func digits(s string) bool {
	for i := 0; i < len(s); i++ {
		if !isDigit(s[i]) {
			return false
		}
	}
	return s != ""
}

func badSize(s string) error {
	return fault.New(fault.InvalidValue, "parse size", shown(s)+" is not a size").
		WithHint("Write a number of bytes, or one with K, M, G, T (powers of 1024), KiB, MiB, GiB, TiB, or KB, MB, GB, TB (powers of 1000).")
}

// FormatBytes writes a size for people with at most one decimal, rounded
// down, in the largest binary unit that does not exceed it: 1.5GiB, 64KiB,
// 1000B. ParseBytes reads it.
func FormatBytes(n int64) string {
	if n < 0 {
		return strconv.FormatInt(n, 10) + "B"
	}
	names := [...]string{"B", "KiB", "MiB", "GiB", "TiB"}
	i, unit := 0, int64(1)
	for i < len(names)-1 && n >= unit<<10 {
		i, unit = i+1, unit<<10
	}
	text := strconv.FormatInt(n/unit, 10)
	if tenth := n % unit * 10 / unit; tenth > 0 {
		text += "." + strconv.FormatInt(tenth, 10)
	}
	return text + names[i]
}

// ParseDuration reads a duration and gives milliseconds: a bare number is
// milliseconds already; otherwise 5s, 2m, 1h30m, 1.5s, 250ms. Another form, a
// negative duration or a part of a millisecond is E1001, more than 2^63-1
// milliseconds E1003.
func ParseDuration(s string) (int64, error) {
	if digits(s) {
		ms, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return 0, fault.New(fault.OutOfRange, "parse duration", shown(s)+" is too long")
		}
		return ms, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || strings.HasPrefix(s, "+") || d%time.Millisecond != 0 {
		return 0, fault.New(fault.InvalidValue, "parse duration", shown(s)+" is not a duration in milliseconds").
			WithHint("Write a number of milliseconds, or 250ms, 5s, 2m, 1h30m.")
	}
	return d.Milliseconds(), nil
}

// quotesHint says what to write for a value at pointer that has quotes and should not, or
// the other way round. Empty: nothing is known.
func quotesHint(pointer, wanted string, quoted bool, text string) string {
	switch {
	case !quoted:
		return "Write " + shown(text) + ", in quotes."
	case wanted == "true or false" && (text == "true" || text == "false"):
		return "Write " + text + ", without quotes."
	case pointer == "/command":
		return "Write [\"sh\", \"-c\", " + shown(text) + "] for a line of a shell; otherwise one string for the program and one for each argument."
	}
	return UnitHint(pointer[strings.LastIndexByte(pointer, '/')+1:], text)
}

// UnitHint says which number to write for a text with a unit, such as 64M for a field
// whose name ends in _bytes or 5s for one in _ms. Empty: it is none.
func UnitHint(field, text string) string {
	var n int64
	var err error
	unit := ""
	switch {
	case strings.HasSuffix(field, "_bytes"):
		unit = "bytes"
		n, err = ParseBytes(text)
	case strings.HasSuffix(field, "_ms"):
		unit = "milliseconds"
		n, err = ParseDuration(text)
	}
	if unit == "" || err != nil {
		return ""
	}
	return "Write " + strconv.FormatInt(n, 10) + ", in " + unit + " and without quotes."
}
