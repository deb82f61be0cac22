package main

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/supervisor/api/wire"
)

func mustListen(t *testing.T, path string) *endpoint {
	t.Helper()
	l, err := listen(path, noGroup)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestSocketIsPrivateAndReplacesAStaleOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	stale := mustListen(t, path)
	stale.UnixListener.Close() // as a process that was killed leaves it
	before, err := os.Lstat(path)
	if err != nil {
		t.Fatal("a killed process leaves its socket:", err)
	}
	l := mustListen(t, path)
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != os.ModeSocket|0o600 || os.SameFile(before, info) {
		t.Fatalf("%v, %v", info.Mode(), err)
	}
	conn, err := dial(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if stale.Close(); !exists(path) {
		t.Error("closing the old one removed the new one")
	}
	if err := l.Close(); err != nil || exists(path) || exists(path+".new") {
		t.Errorf("close: %v; it left something", err)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestSocketIsNotTakenFromTheLiving(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	mustListen(t, path)
	_, err := listen(path, noGroup)
	if err == nil || !strings.Contains(err.Error(), "process "+strconv.Itoa(os.Getpid())) {
		t.Errorf("a second one: %v", err)
	}
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(file, noGroup); err == nil {
		t.Error("a file was replaced")
	}
	if got, err := os.ReadFile(file); string(got) != "precious" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestSocketAtALongPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	l := mustListen(t, path)
	conn, err := dial(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if peer, err := wire.Peer(conn); err != nil || peer.Pid != os.Getpid() {
		t.Errorf("%+v, %v", peer, err)
	}
	if l.Addr().String() != path {
		t.Errorf("address %s", l.Addr())
	}
}

func TestSocketOfAGroup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := listen(path, os.Getegid())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.readmit(os.Getegid()); err != nil {
		t.Error(err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("after readmit: %v, %v", info.Mode(), err)
	}
}

func TestLockNamesItsHolder(t *testing.T) {
	state := layout.State(t.TempDir())
	held, err := takeLock(state)
	if err != nil {
		t.Fatal(err)
	}
	_, err = takeLock(state)
	if err == nil || !strings.Contains(err.Error(), "pid "+strconv.Itoa(os.Getpid())) {
		t.Errorf("a second one: %v", err)
	}
	held.Close()
	again, err := takeLock(state)
	if err != nil {
		t.Fatal("the lock outlives its holder:", err)
	}
	again.Close()
}

// TestLockOfTheDead: a process that a killed capsuled had forked keeps the lock for
// some time.
func TestLockOfTheDead(t *testing.T) {
	state := layout.State(t.TempDir())
	held, err := takeLock(state)
	if err != nil {
		t.Fatal(err)
	}
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	if err := write(held, strconv.Itoa(dead.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(2*lockPatience, func() { held.Close() })
	f, err := takeLock(state)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

func TestHandedOverSocketMustBeAPathOfUnix(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := takeOver(f, noGroup); err == nil {
		t.Error("a TCP socket was taken over")
	}
	path := filepath.Join(t.TempDir(), "s")
	made, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer made.Close()
	handed, err := made.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer handed.Close()
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := takeOver(handed, os.Getegid()); err == nil {
		t.Error("a socket for everybody was taken over for a group")
	}
	mine, err := takeOver(handed, noGroup)
	if err != nil {
		t.Fatal(err)
	}
	if err := mine.Close(); err != nil || !exists(path) {
		t.Errorf("close: %v; systemd's socket has to stay", err)
	}
	if err := mine.Close(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}
