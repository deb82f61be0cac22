package main

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestSilentDaemon: a daemon that reads and never answers, as one that is stopped.
// Who gives up is free at once, and one that would come back later finds no execution to
// begin whose caller has left without knowing its id.
func TestSilentDaemon(t *testing.T) {
	capsulectl := filepath.Join(programs(t), "capsulectl")
	for _, v := range []struct {
		name        string
		flags       []string
		asks, never string
	}{
		{"run", nil, "Start", "Health"},
		{"detached", []string{"-d"}, "Health", "Start"},
	} {
		t.Run(v.name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "s")
			listener, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			cmd := exec.Command(capsulectl, append(append([]string{"run", "--address", socket}, v.flags...), "true")...)
			cmd.Stderr = os.Stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Process.Kill()
			conn, err := listener.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			var heard bytes.Buffer
			for piece := make([]byte, 4096); !bytes.Contains(heard.Bytes(), []byte(v.asks)); {
				n, err := conn.Read(piece)
				if err != nil {
					t.Fatalf("after %q: %v", heard.String(), err)
				}
				heard.Write(piece[:n])
			}
			// It may still be on its way to where it waits.
			time.Sleep(200 * time.Millisecond)
			began := time.Now()
			// Not SIGINT, which stays ignored where the tests' caller has it so.
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			if took := time.Since(began); took > killPatience/2 {
				t.Errorf("it took %v to give up", took)
			}
			if bytes.Contains(heard.Bytes(), []byte(v.never)) {
				t.Errorf("it asked for %s: %q", v.never, heard.String())
			}
			t.Logf("exit status %d after %v", cmd.ProcessState.ExitCode(), time.Since(began))
		})
	}
}
