package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"

	"github.com/google/uuid"

	"github.com/capsule-run/capsule/spec"
)

// kind is a sort of execution.
type kind string

// The kinds.
const (
	short   kind = "short"   // an exit code and a digest
	long    kind = "long"    // sleeps, then prints
	chatty  kind = "chatty"  // 2 MiB of numbered lines, with a pause in the middle
	forking kind = "forking" // 50 children, some of which outlive it
	hungry  kind = "hungry"  // 30 MiB below its limit
	starved kind = "starved" // above its limit
	owned   kind = "owned"   // would end with its client, which lives
	visited kind = "visited" // its client is killed, and it goes on
	// deserted ones end ten seconds after their client, which is killed, and long
	// before they would by themselves.
	deserted kind = "deserted"
)

// plan is an execution to come and how it is to end.
type plan struct {
	kind    kind
	id      string
	request []byte
	owned   bool
	reason  spec.Reason
	exit    int
	stdout  []byte
}

// chattyLines make about 2 MiB.
const chattyLines = 48_000

// chattyLine is the format of one, for seq and for fmt.
const chattyLine = "%s of a payload that has a lot to say\n"

// output of the chatty kind; all say the same.
func chattyOutput() []byte {
	var b bytes.Buffer
	for i := range chattyLines {
		fmt.Fprintf(&b, chattyLine, strconv.Itoa(i+1))
	}
	sum := sha256.Sum256(b.Bytes())
	fmt.Fprintf(&b, "%x\n", sum)
	return b.Bytes()
}

// planner makes plans.
type planner struct{ chatter []byte }

// object is JSON.
type object = map[string]any

// make plans an execution. All end by themselves within the timeout.
func (p *planner) make(k kind, r *rand.Rand) *plan {
	var text [16]byte
	for i := range text {
		text[i] = 'a' + byte(r.IntN(26))
	}
	word := string(text[:])
	n := &plan{kind: k, id: uuid.NewString(), reason: spec.ReasonExited, exit: r.IntN(120)}
	resources := object{}
	var script string
	switch k {
	case short:
		script = "printf %s $0 | sha256sum; exit $1"
		n.stdout = fmt.Appendf(nil, "%x  -\n", sha256.Sum256([]byte(word)))
	case long, owned, visited, deserted:
		seconds := 0.3 + 2.5*r.Float64()
		if k == deserted {
			seconds = 50
		}
		script = fmt.Sprintf("sleep %.1f; echo $0; exit $1", seconds)
		n.stdout = []byte(word + "\n")
		n.owned = k == owned || k == deserted
	case chatty:
		format := "seq -f '%.0f of a payload that has a lot to say' "
		script = format + "1 24000 >out; cat out; sleep 0.3; " + format + "24001 48000 >more; cat more; cat out more | sha256sum | cut -c1-64; exit $1"
		resources["max_output_bytes"] = 4 << 20
		n.stdout = p.chatter
	case forking:
		script = "i=0; while [ $i -lt 50 ]; do sleep 0.$i & i=$((i+1)); done; wait; " +
			"i=0; while [ $i -lt 5 ]; do setsid sleep 100 & i=$((i+1)); done; echo $0; exit $1"
		n.stdout = []byte(word + "\n")
	case hungry:
		script = "head -c 31457280 /dev/zero | tail | wc -c; echo $0; exit $1"
		resources["memory_bytes"] = 64 << 20
		n.stdout = []byte("31457280\n" + word + "\n")
	case starved:
		// Without a clean exit, which would make the kill of a child a detail.
		script = "echo $0; head -c 41943040 /dev/zero | tail >/dev/null || exit 99; exit 99"
		resources["memory_bytes"] = 24 << 20
		n.reason = spec.ReasonOOM
		n.stdout = []byte(word + "\n")
	}
	n.request = request(script, word, n.exit, resources)
	return n
}

func request(script, word string, exit int, resources object) []byte {
	data, err := json.Marshal(object{"command": []string{"sh", "-c", script, word, strconv.Itoa(exit)},
		"timeout_ms": 60_000, "resources": resources})
	if err != nil {
		panic(err) // it is made of strings and numbers
	}
	return data
}

// mismatch says what is not as planned; empty: nothing.
func (p *plan) mismatch(r *spec.Response) string {
	if r.Termination.Reason != p.reason {
		return fmt.Sprintf("reason %s, not %s", r.Termination.Reason, p.reason)
	}
	stdout, err := r.StdoutBytes()
	switch {
	case err != nil:
		return err.Error()
	case p.reason == spec.ReasonOOM:
		if r.Status != spec.StatusKilled {
			return "status " + string(r.Status)
		}
	case r.Status != spec.StatusSuccess || r.ExitCode == nil || *r.ExitCode != p.exit:
		return fmt.Sprintf("status and exit code are not success and %d", p.exit)
	}
	if !bytes.Equal(stdout, p.stdout) {
		return fmt.Sprintf("stdout has %d bytes (sha256 %.8x), not %d (%.8x)", len(stdout), sha256.Sum256(stdout), len(p.stdout), sha256.Sum256(p.stdout))
	}
	return ""
}
