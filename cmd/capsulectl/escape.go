package main

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// printable shows text that a payload chose: whatever a terminal might act on,
// or that is not seen (control characters, changes of the writing direction,
// bytes that are not UTF-8) stands as its Go escape.
func printable(s string) string {
	clean := true
	for _, r := range s {
		clean = clean && r != utf8.RuneError && strconv.IsPrint(r)
	}
	if clean {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			b.WriteString(`\x` + strconv.FormatUint(uint64(s[0])+0x100, 16)[1:])
		case strconv.IsPrint(r):
			b.WriteRune(r)
		default:
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		s = s[n:]
	}
	return b.String()
}

// diagnostic is printable text that may have several lines.
func diagnostic(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r != '\n' && r != '\t' && (r < ' ' || r >= 0x7f && r < 0xa0) }) {
		return s
	}
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = printable(strings.ReplaceAll(lines[i], "\t", "    "))
	}
	return strings.Join(lines, "\n")
}

// word shows one argument so that its ends can be seen.
func word(s string) string {
	const special = " \t\"'\\$`|&;<>()*?[]#~{}!"
	if s != "" && !strings.ContainsAny(s, special) && printable(s) == s {
		return s
	}
	return strconv.Quote(s)
}

// commandLine shows a command on one line.
func commandLine(command []string) string {
	words := make([]string, len(command))
	for i, w := range command {
		words[i] = word(w)
	}
	return strings.Join(words, " ")
}

// brief is the beginning of s, at most n characters.
func brief(s string, n int) string {
	if n <= 0 || utf8.RuneCountInString(s) <= n {
		return s
	}
	if n == 1 {
		return "…"
	}
	runes := []rune(s)
	return string(runes[:n-1]) + "…"
}
