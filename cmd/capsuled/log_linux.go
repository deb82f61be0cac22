package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"syscall"
)

// newLog writes lines for people or for machines. The journal has the time of
// every line already.
func newLog(o *options, w io.Writer) *slog.Logger {
	h := &slog.HandlerOptions{Level: o.level}
	if f, ok := w.(*os.File); ok && isJournal(f) {
		h.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	if o.format == "json" {
		return slog.New(slog.NewJSONHandler(w, h))
	}
	return slog.New(slog.NewTextHandler(w, h))
}

// isJournal tells whether f is the journal's, which systemd names by device and
// inode: the variable alone is inherited by whoever has redirected it.
func isJournal(f *os.File) bool {
	info, err := f.Stat()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}
