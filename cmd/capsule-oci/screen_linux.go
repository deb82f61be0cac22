package main

import (
	"errors"
	"io"
	"os"
	"os/signal"
	"strconv"

	"golang.org/x/sys/unix"
)

func itoa(n int) string { return strconv.Itoa(n) }

func joined(errs ...error) error { return errors.Join(errs...) }

// screen copies between a container's terminal and this process' own streams.
type screen struct {
	master *os.File
	before *unix.Termios // of our own terminal
	resize chan os.Signal
	done   chan struct{}
}

// show begins to copy. Our own terminal, where there is one, lets every key through.
func show(master *os.File) *screen {
	s := &screen{master: master, resize: make(chan os.Signal, 1), done: make(chan struct{})}
	if t, err := unix.IoctlGetTermios(0, unix.TCGETS); err == nil {
		raw := *t
		raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
		raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
		raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
		if unix.IoctlSetTermios(0, unix.TCSETS, &raw) == nil {
			s.before = t
		}
	}
	// Our terminal makes CR LF of LF, so the container's must not.
	if t, err := unix.IoctlGetTermios(int(master.Fd()), unix.TCGETS); err == nil {
		t.Oflag &^= unix.ONLCR
		_ = unix.IoctlSetTermios(int(master.Fd()), unix.TCSETS, t) // then there is a CR too many
	}
	s.size()
	signal.Notify(s.resize, unix.SIGWINCH)
	go func() {
		for range s.resize {
			s.size()
		}
	}()
	go func() { _, _ = io.Copy(master, os.Stdin) }() // ends with the process at the latest
	go func() {
		_, _ = io.Copy(os.Stdout, master) // EIO: the last process has closed the terminal
		close(s.done)
	}()
	return s
}

// size gives the container's terminal the size of ours.
func (s *screen) size() {
	if w, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil {
		_ = unix.IoctlSetWinsize(int(s.master.Fd()), unix.TIOCSWINSZ, w) // it may be gone
	}
}

// close waits for the rest of the output and gives our terminal back. Nil: does nothing.
func (s *screen) close() {
	if s == nil {
		return
	}
	<-s.done
	signal.Stop(s.resize)
	if s.before != nil {
		_ = unix.IoctlSetTermios(0, unix.TCSETS, s.before) // it may be gone
	}
	s.master.Close()
}
