package shim

import (
	"os"
)

// filesFrom is how much output, of both streams together and in bytes, is left
// in files for a supervisor that takes it from there: it would be several times
// in the memory of this process and of that one otherwise.
const filesFrom = 256 << 10

// saveLarge leaves large output in the files of its streams. False: it is small,
// the supervisor does not know of files, or they cannot be written.
func (e *execution) saveLarge() bool {
	stdout, stderr := e.stdio.stdout, e.stdio.stderr
	if !e.boot.OutputFiles || stdout.Counts().BytesKept+stderr.Counts().BytesKept <= filesFrom {
		return false
	}
	// A fault stays with the stream, which addOutput asks.
	return stdout.Save() == nil && stderr.Save() == nil
}

// writeTimes records when the output came, for executions that are asked for
// later. Without it all is there but the times.
func (e *execution) writeTimes() {
	stdout, stderr := e.stdio.stdout, e.stdio.stderr
	if e.boot.Foreground || stdout == nil || stderr == nil || stdout.Counts().BytesKept+stderr.Counts().BytesKept == 0 {
		return
	}
	// It has a checksum: half of it is not taken for the whole.
	_ = os.WriteFile(e.dir.Times(), stderr.AppendTimes(stdout.AppendTimes(nil)), 0o600)
}
