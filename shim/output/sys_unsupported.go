//go:build !linux && !darwin

package output

import (
	"os"
	"runtime"

	"github.com/capsule-run/capsule/spec/fault"
)

// unsupported is the answer of everything here.
func unsupported() error {
	return fault.New(fault.Unsupported, "capture output", "there is no capture on "+runtime.GOOS)
}

func makePipe() (r, w int, err error)                 { return -1, -1, unsupported() }
func readNow(int, []byte) (int, error)                { return 0, unsupported() }
func widenPipe(int)                                   {}
func queued(int) (int, error)                         { return 0, unsupported() }
func writersGone(int) bool                            { return false }
func createAt(dir int, name string) (*os.File, error) { return nil, unsupported() }

type discarder struct{}

func (discarder) from(int) (n int, err error, able bool) { return 0, nil, false }
func (discarder) close()                                 {}
