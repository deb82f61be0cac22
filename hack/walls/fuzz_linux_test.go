package walls

import (
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/spec/fault"
)

// FuzzSandbox launches what random changes make of a configuration and of its
// plan. Whatever comes of it, it comes soon and with a fault, and nothing of
// it is left: no process, no descriptor, no mount of the host's.
func FuzzSandbox(f *testing.F) {
	f.Add([]byte(nil))
	for i := range byte(16) {
		f.Add([]byte{i, 3, 5, i + 1, 7, 2})
		f.Add([]byte{i, 11, 1, i, 2, 9, 3 * i, 4, 4, 200, i, 9})
	}
	if _, err := filter(); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 90 {
			data = data[:90]
		}
		before := belongings(t)
		b := box{command: []string{"/bin/true"}}.with(func(s *specs.Spec) { eachThree(data, 0, func(what, x, y byte) { mutateConfig(s, what, x, y) }) },
			func(p *plan.Plan) { eachThree(data, 1, func(what, x, y byte) { mutatePlan(p, what, x, y) }) })
		p, err := b.tryCompile(t)
		if err == nil {
			err = b.live(t, p)
		}
		var one *fault.Fault
		var list fault.List
		if err != nil && !errors.As(err, &one) && !errors.As(err, &list) {
			t.Errorf("not a fault: %v", err)
		}
		if after := belongings(t); !slices.Equal(before, after) {
			t.Errorf("%q became %q", before, after)
		}
	})
}

// live launches a plan and sees it to its end.
func (b box) live(t *testing.T, p *plan.Plan) error {
	r, err := b.launch(t, p)
	if err != nil {
		return err
	}
	defer r.out.Close()
	late := time.AfterFunc(patient(20*time.Second), func() { _ = r.sb.Kill() })
	_, err = r.sb.Started()
	if err == nil {
		_, _ = r.sb.Exited() // the end of process 1 is one too
		_, _ = r.sb.Reap()
	} else {
		r.sb.Abandon()
	}
	r.cancel()
	if !late.Stop() {
		t.Error("it hangs")
	}
	return err
}

// belongings are the host's mounts, this process's descriptors and children.
func belongings(t *testing.T) []string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	have := []string{string(mounts)}
	if _, err := unix.Wait4(-1, nil, unix.WNOHANG|unix.WNOWAIT, nil); err != unix.ECHILD && err != unix.EINVAL {
		have = append(have, "a child")
	}
	for fd := 3; fd < 200; fd++ {
		var st unix.Stat_t
		// Pipes of the test that wait for the collector have finalizers of their own.
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
			have = append(have, "a descriptor")
		}
	}
	return have
}

// eachThree hands out every other three bytes, from the first or the second on.
func eachThree(data []byte, from int, do func(what, x, y byte)) {
	for i := 3 * from; i+3 <= len(data); i += 6 {
		do(data[i], data[i+1], data[i+2])
	}
}

var (
	fuzzOptions = []string{"ro", "rw", "rro", "nosuid", "noexec", "nodev", "rbind", "bind", "private", "shared", "slave", "size=1", "nr_inodes=1", "mode=000", "hidepid=0", "subset=pid", "noatime", "nosymfollow", "nonsense"}
	fuzzPaths   = []string{"/", "/proc", "/dev", "/dev/shm", "/tmp", "/usr", "/usr/bin", "/etc", "/workspace", "/new/deep/place", "/proc/self", "/sys", "/a\nb"}
	fuzzTypes   = []string{"tmpfs", "proc", "devpts", "mqueue", "sysfs", "bind", "ext4", "cgroup2", ""}
)

func pick[T any](list []T, n byte) T { return list[int(n)%len(list)] }

func mutateConfig(s *specs.Spec, what, x, y byte) {
	m := &s.Mounts[int(x)%len(s.Mounts)]
	switch what % 13 {
	case 0:
		if len(s.Mounts) > 1 {
			s.Mounts = slices.Delete(slices.Clone(s.Mounts), int(x)%len(s.Mounts), int(x)%len(s.Mounts)+1)
		}
	case 1:
		s.Mounts = slices.Insert(slices.Clone(s.Mounts), int(y)%len(s.Mounts), *m)
	case 2:
		other := &s.Mounts[int(y)%len(s.Mounts)]
		*m, *other = *other, *m
	case 3:
		m.Options = append(slices.Clone(m.Options), pick(fuzzOptions, y))
	case 4:
		m.Destination = pick(fuzzPaths, y)
	case 5:
		m.Type = pick(fuzzTypes, y)
	case 6:
		s.Linux.MaskedPaths = append(slices.Clone(s.Linux.MaskedPaths), pick(fuzzPaths, y))
	case 7:
		s.Linux.ReadonlyPaths = append(slices.Clone(s.Linux.ReadonlyPaths), pick(fuzzPaths, y))
	case 8:
		s.Root.Readonly = !s.Root.Readonly
	case 9:
		s.Process.Cwd = pick(fuzzPaths, y)
	case 10:
		s.Linux.Namespaces = slices.Delete(slices.Clone(s.Linux.Namespaces), int(x)%len(s.Linux.Namespaces), len(s.Linux.Namespaces))
	case 11:
		l := &s.Process.Rlimits[int(x)%len(s.Process.Rlimits)]
		l.Soft, l.Hard = uint64(y), uint64(y)
	case 12:
		s.Process.User.UID, s.Process.User.GID = uint32(x)<<8, uint32(y)
	}
}

// mutatePlan takes a step out, doubles it, or exchanges it with its neighbour,
// but not the first, which waits for the id maps.
func mutatePlan(p *plan.Plan, what, x, y byte) {
	steps := pick([]*[]plan.Step{&p.Setup, &p.Payload, &p.Init}, what)
	if len(*steps) < 3 {
		return
	}
	at := 1 + (int(x)<<8|int(y))%(len(*steps)-2)
	switch what / 3 % 3 {
	case 0:
		*steps = slices.Delete(slices.Clone(*steps), at, at+1)
	case 1:
		*steps = slices.Insert(slices.Clone(*steps), at, (*steps)[at])
	case 2:
		*steps = slices.Clone(*steps)
		(*steps)[at], (*steps)[at+1] = (*steps)[at+1], (*steps)[at]
	}
}
