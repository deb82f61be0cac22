package spec_test

import (
	"errors"
	"math"
	"testing"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

func TestParseBytes(t *testing.T) {
	for s, want := range map[string]int64{
		"0": 0, "256": 256, "256B": 256, "64K": 65536, "64k": 65536, "64KB": 64000, "64KiB": 65536,
		"1.5GiB": 1610612736, "512MB": 512000000, "512M": 536870912, "1g": 1 << 30, "2T": 2 << 40, "1tb": 1e12,
		"0.3K": 307, "1.5": 1, "0.000000001T": 1099, "007K": 7168,
		"9223372036854775807": math.MaxInt64, "8388607T": 8388607 << 40, "8388607.999999999T": 8388607<<40 + 1099511626676,
	} {
		if have, err := spec.ParseBytes(s); err != nil || have != want {
			t.Errorf("%s: %d, %v, want %d", s, have, err, want)
		}
	}
	for s, want := range map[string]fault.Code{
		"": fault.InvalidValue, "K": fault.InvalidValue, "-1": fault.InvalidValue, "+1": fault.InvalidValue, "1 K": fault.InvalidValue,
		"1.K": fault.InvalidValue, ".5K": fault.InvalidValue, "1e3": fault.InvalidValue, "0x10": fault.InvalidValue, "1KK": fault.InvalidValue,
		"1.2.3": fault.InvalidValue, "1.0000000001K": fault.InvalidValue, "1P": fault.InvalidValue, "\u0661": fault.InvalidValue, "1,5G": fault.InvalidValue,
		"9223372036854775808": fault.OutOfRange, "8388608T": fault.OutOfRange, "99999999999999999999999K": fault.OutOfRange,
		"18446744073709551616": fault.OutOfRange, "16777216T": fault.OutOfRange, "9007199254740992K": fault.OutOfRange,
	} {
		if have, err := spec.ParseBytes(s); !errors.Is(err, &fault.Fault{Code: want}) {
			t.Errorf("%q: %d, %v, want %s", s, have, err, want)
		}
	}
}

func TestFormatBytes(t *testing.T) {
	for n, want := range map[int64]string{
		-1: "-1B", 0: "0B", 1000: "1000B", 1023: "1023B", 1024: "1KiB", 1536: "1.5KiB", 65536: "64KiB", 1<<20 - 1: "1023.9KiB",
		1 << 30: "1GiB", 3 << 29: "1.5GiB", 1 << 40: "1TiB", math.MaxInt64: "8388607.9TiB",
	} {
		if have := spec.FormatBytes(n); have != want {
			t.Errorf("%d: %s, want %s", n, have, want)
		}
		if n < 0 {
			continue
		}
		if back, err := spec.ParseBytes(want); err != nil || back > n || float64(back) < 0.9*float64(n) {
			t.Errorf("%s is read as %d, %v", want, back, err)
		}
	}
}

func TestParseDuration(t *testing.T) {
	for s, want := range map[string]int64{
		"0": 0, "200": 200, "250ms": 250, "5s": 5000, "2m": 120000, "1h30m": 5400000, "1.5s": 1500, "0s": 0, "9223372036854775807": math.MaxInt64,
	} {
		if have, err := spec.ParseDuration(s); err != nil || have != want {
			t.Errorf("%s: %d, %v, want %d", s, have, err, want)
		}
	}
	for s, want := range map[string]fault.Code{
		"": fault.InvalidValue, "s": fault.InvalidValue, "-1": fault.InvalidValue, "-5s": fault.InvalidValue, "+5s": fault.InvalidValue, "5 s": fault.InvalidValue,
		"1d": fault.InvalidValue, "1.5": fault.InvalidValue, "100us": fault.InvalidValue, "1.5ms": fault.InvalidValue, "9223372036854775808": fault.OutOfRange,
	} {
		if have, err := spec.ParseDuration(s); !errors.Is(err, &fault.Fault{Code: want}) {
			t.Errorf("%q: %d, %v, want %s", s, have, err, want)
		}
	}
}
