package e2e

import (
	"bytes"
	"encoding/base64"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/capsule-run/capsule/spec"
)

// counted checks the counts of stdout.
func (o outcome) counted(t *testing.T, total, kept int64) {
	t.Helper()
	if have, want := o.Output.Stdout, (spec.StreamCount{BytesTotal: total, BytesKept: kept, Truncated: total > kept}); have != want {
		t.Errorf("stdout %+v, want %+v", have, want)
	}
}

// TestFlood counts to the byte what is far more than can be kept.
func TestFlood(t *testing.T) {
	c := begin(t)
	size := int64(1 << 30)
	if slow() > 1 || testing.Short() {
		size = 64 << 20
	}
	o := c.run(object{"command": sh("yes | head -c " + strconv.FormatInt(size, 10)), "timeout_ms": ms(patient(time.Minute))})
	o.is(t, exited(0))
	o.counted(t, size, 1<<20)
	if o.text() != strings.Repeat("y\n", 1<<19) {
		t.Error("what was kept is not the beginning")
	}
}

// TestOutputPolicies writes the same to each policy.
func TestOutputPolicies(t *testing.T) {
	const script = `seq 100000; echo err >&2`
	var all strings.Builder
	for i := range 100000 {
		all.WriteString(strconv.Itoa(i+1) + "\n")
	}
	text, total := all.String(), int64(all.Len())
	for _, v := range []struct {
		policy string
		limit  int64
		want   want
		stdout string
	}{
		{"truncate", 1000, exited(0), text[:1000]},
		{"tail", 1000, exited(0), text[total-1000:]},
		{"truncate", total, exited(0), text},
		{"tail", total, exited(0), text},
		{"kill", total, exited(0), text},
		{"truncate", 0, exited(0), ""},
		{"tail", 0, exited(0), ""},
		{"kill", 1000, want{spec.StatusKilled, spec.ReasonOutputLimit, "E3006", -1, 9, 137}, text[:1000]},
	} {
		t.Run(v.policy+" "+strconv.FormatInt(v.limit, 10), func(t *testing.T) {
			c := begin(t)
			command := sh(script)
			if v.want.exit < 0 {
				command = sh(script + "; while :; do sleep 1000; done")
			}
			o := c.run(object{"command": command, "resources": object{"output_policy": v.policy, "max_output_bytes": v.limit}})
			o.is(t, v.want)
			if o.text() != v.stdout {
				t.Errorf("stdout %.60q (%d bytes), want %.60q (%d bytes)", o.text(), len(o.text()), v.stdout, len(v.stdout))
			}
			if v.want.exit == 0 {
				o.counted(t, total, int64(len(v.stdout)))
			} else if k := o.Output.Stdout; k.BytesTotal <= v.limit || k.BytesKept != v.limit || !k.Truncated {
				t.Errorf("counts %+v", k)
			}
			if v.limit > 3 && v.want.exit == 0 && o.errors() != "err\n" {
				t.Errorf("stderr %q", o.errors())
			}
		})
	}
}

// TestBinaryOutput wants bytes that are no text to survive, each stream for itself.
func TestBinaryOutput(t *testing.T) {
	c := begin(t)
	o := c.run(object{"command": sh(`printf 'a\377\000b'; printf 'grüße\0' >&2`)})
	o.printed(t, base64.StdEncoding.EncodeToString([]byte("a\xff\x00b")))
	if o.StdoutEncoding != "base64" || o.StderrEncoding != "" || o.errors() != "grüße\x00" {
		t.Errorf("encodings %q and %q, stderr %q", o.StdoutEncoding, o.StderrEncoding, o.errors())
	}
	// A limit in the middle of a character leaves text that ends before it.
	o = c.run(object{"command": sh(`printf 'aü'`), "resources": object{"max_output_bytes": 2}})
	o.printed(t, "a")
	if o.StdoutEncoding != "" {
		t.Errorf("encoding %q", o.StdoutEncoding)
	}
}

// TestSurvivorsHoldNothing wants the answer when the command ends, whoever
// keeps its streams.
func TestSurvivorsHoldNothing(t *testing.T) {
	for name, script := range map[string]string{
		"child":       `sleep 1000 & echo done`,
		"grandchild":  `(sleep 1000 &) ; echo done`,
		"new session": `setsid sh -c 'trap "" TERM HUP; sleep 1000; sleep 1000' & echo done`,
	} {
		t.Run(name, func(t *testing.T) {
			c := begin(t)
			o := c.run(object{"command": sh(script)})
			o.printed(t, "done\n")
			if w := *o.Metrics.WallTimeMS; w > float64(ms(patient(5*time.Second))) {
				t.Errorf("wall time %v ms", w)
			}
		})
	}
	t.Run("last words", func(t *testing.T) {
		c := begin(t)
		o := c.run(object{"command": sh(`(sleep 0.02; echo late) & echo early`)})
		if o.is(t, exited(0)); !strings.HasPrefix(o.text(), "early\n") {
			t.Errorf("stdout %q", o.text())
		}
	})
}

// random are n bytes that no text contains.
func random(n int) []byte {
	g := rand.NewChaCha8([32]byte{1})
	b := make([]byte, n)
	_, _ = g.Read(b) // never fails
	return b
}

// TestStdin sends input in every way, and gets it back.
func TestStdin(t *testing.T) {
	data := random(5 << 20) // more than one message holds
	text := strings.Repeat("0123456789abcde\n", len(data)/16)
	large := object{"max_output_bytes": 16 << 20}
	for _, v := range []struct {
		name   string
		stdin  any
		stdout string
	}{
		{"none", nil, ""},
		{"empty", "", ""},
		{"short", "hello", "hello"},
		{"not ASCII", "grüße \u0000 \U0001f600", "grüße \u0000 \U0001f600"},
		{"larger than a pipe", text[:200<<10], text[:200<<10]},
		{"larger than a message", text, text},
		{"bytes", object{"base64": base64.StdEncoding.EncodeToString(data)}, base64.StdEncoding.EncodeToString(data)},
	} {
		t.Run(v.name, func(t *testing.T) {
			c := begin(t)
			request := object{"command": []string{"cat"}, "resources": large}
			if v.stdin != nil {
				request["stdin"] = v.stdin
			}
			o := c.run(request)
			if o.is(t, exited(0)); o.text() != v.stdout {
				t.Errorf("%d bytes came back, %d were sent", len(o.text()), len(v.stdout))
			}
		})
	}
	t.Run("streamed", func(t *testing.T) {
		c := begin(t)
		cmd := c.command("-i", "--", "cat")
		cmd.Stdin = bytes.NewReader(data)
		if o := c.finish(cmd); o.code != 0 || o.out != string(data) || o.complaints() != "" {
			t.Errorf("exit %d, %d bytes came back, stderr %q", o.code, len(o.out), o.stderr)
		}
	})
	t.Run("unwanted", func(t *testing.T) {
		c := begin(t)
		c.run(object{"command": sh("head -c 3; echo; exit 0"), "stdin": text}).printed(t, "012\n")
		cmd := c.command("-i", "--", "head", "-c", "3")
		cmd.Stdin = bytes.NewReader(data)
		if o := c.finish(cmd); o.code != 0 || o.out != string(data[:3]) {
			t.Errorf("streamed: exit %d, stdout %q, stderr %q", o.code, o.out, o.stderr)
		}
	})
	t.Run("not passed on unasked", func(t *testing.T) {
		c := begin(t)
		cmd := c.command("--", "cat")
		cmd.Stdin = strings.NewReader("secret")
		if o := c.finish(cmd); o.code != 0 || o.out != "" {
			t.Errorf("exit %d, stdout %q", o.code, o.out)
		}
	})
}

// TestLargeResponse gets a response that no message holds, and both streams full.
func TestLargeResponse(t *testing.T) {
	c := begin(t)
	const size = 8 << 20
	o := c.run(object{"command": sh("head -c 8M /dev/urandom | tee /dev/stderr"), "resources": object{"max_output_bytes": size}})
	o.is(t, exited(0))
	o.counted(t, size, size)
	if data, err := base64.StdEncoding.DecodeString(o.text()); err != nil || len(data) != size || o.text() != o.errors() {
		t.Errorf("%d bytes: %v", len(data), err)
	}
}
