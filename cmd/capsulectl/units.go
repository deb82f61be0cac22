package main

import (
	"strconv"
	"syscall"
	"time"
)

// span shows a time to a person: 350 ms, 12 s, 3 h.
func span(d time.Duration) string {
	switch d = max(d, 0); {
	case d < 10*time.Second:
		return durationFloat(float64(d.Milliseconds()))
	case d < 2*time.Minute:
		return strconv.Itoa(int(d.Seconds())) + " s"
	case d < 2*time.Hour:
		return strconv.Itoa(int(d.Minutes())) + " min"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d.Hours())) + " h"
	}
	return strconv.Itoa(int(d.Hours()/24)) + " d"
}

// signalNumber is SIGTERM for 15.
func signalNumber(n int) string { return signalName(syscall.Signal(n)) }

// duration shows milliseconds to a person: 2 ms, 1.5 s, 2 min.
func duration(ms int64) string { return durationFloat(float64(ms)) }

func durationFloat(ms float64) string {
	switch {
	case ms < 1000:
		return shortFloat(ms) + " ms"
	case ms < 120_000:
		return shortFloat(ms/1000) + " s"
	case ms < 7_200_000:
		return shortFloat(ms/60_000) + " min"
	}
	return shortFloat(ms/3_600_000) + " h"
}

// flagDuration shows milliseconds as the flags accept them: 500ms, 60s.
func flagDuration(ms int64) string {
	if ms%1000 == 0 && ms > 0 {
		return strconv.FormatInt(ms/1000, 10) + "s"
	}
	return strconv.FormatInt(ms, 10) + "ms"
}

// shortFloat shows three significant digits at most, without trailing zeros.
func shortFloat(v float64) string {
	precision := 2
	switch {
	case v >= 100:
		precision = 0
	case v >= 10:
		precision = 1
	}
	s := strconv.FormatFloat(v, 'f', precision, 64)
	if precision == 0 {
		return s
	}
	for s[len(s)-1] == '0' {
		s = s[:len(s)-1]
	}
	if s[len(s)-1] == '.' {
		s = s[:len(s)-1]
	}
	return s
}
