package spec

import "unicode/utf8"

// WholeRunes takes the part of a character off that the limit for output cut in
// two, at the end or, of a tail, at the beginning, and off what counts as kept: text
// stays text. Bytes that are no UTF-8 without it either stay as they are.
func WholeRunes(kept []byte, count *StreamCount, tail bool) []byte {
	if !count.Truncated || utf8.Valid(kept) {
		return kept
	}
	for cut := 1; cut < utf8.UTFMax && cut <= len(kept); cut++ {
		rest, part := kept[:len(kept)-cut], kept[len(kept)-cut:]
		if tail {
			rest, part = kept[cut:], kept[:cut]
		}
		if isPart(part, tail) && utf8.Valid(rest) {
			count.BytesKept -= int64(cut)
			return rest
		}
	}
	return kept
}

// isPart tells whether b may be the beginning of a character whose rest is
// missing or, of a tail, the rest of one whose beginning is.
func isPart(b []byte, tail bool) bool {
	if !tail {
		return utf8.RuneStart(b[0]) && !utf8.FullRune(b)
	}
	for _, c := range b {
		if utf8.RuneStart(c) {
			return false
		}
	}
	return true
}
