package server

import (
	"strings"
	"unicode/utf8"

	supervisorv1 "github.com/capsule-run/capsule/supervisor/api/v1"
	"github.com/capsule-run/capsule/supervisor/api/wire"
)

// A message that has a string which is not UTF-8 cannot be encoded at all. A
// record may come from an older version, or from a path of the host.

func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func validList(list []string) []string {
	for i, s := range list {
		if utf8.ValidString(s) {
			continue
		}
		fixed := append([]string(nil), list...)
		for ; i < len(fixed); i++ {
			fixed[i] = valid(fixed[i])
		}
		return fixed
	}
	return list
}

func validMap(m map[string]string) map[string]string {
	for k, v := range m {
		if utf8.ValidString(k) && utf8.ValidString(v) {
			continue
		}
		fixed := make(map[string]string, len(m))
		for k, v := range m {
			fixed[valid(k)] = valid(v)
		}
		return fixed
	}
	return m
}

// maxShown is how much of a command is left where it does not fit.
const maxShown = 4 << 10

// shortenCommand leaves the first 4 KiB of a command, for places where the
// whole does not fit into a message. "..." stands for the rest.
func shortenCommand(command []string) []string {
	left := maxShown
	for i, arg := range command {
		if len(arg) > left {
			short := append([]string(nil), command[:i]...)
			return append(short, valid(arg[:left])+"...")
		}
		left -= len(arg) + 1
		if left <= 0 && i+1 < len(command) {
			return append(append([]string(nil), command[:i+1]...), "...")
		}
	}
	return command
}

// shorten cuts what may be long in a summary.
func shorten(s *supervisorv1.Summary) {
	s.Command = shortenCommand(s.Command)
	size := 0
	for k, v := range s.Labels {
		size += len(k) + len(v)
	}
	if size > wire.MaxResponse {
		s.Labels = nil
	}
}
