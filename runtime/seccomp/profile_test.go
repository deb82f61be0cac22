package seccomp

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/spec/fault"
)

// TestGenerated fails when go generate was not run after a change.
func TestGenerated(t *testing.T) {
	for _, name := range Names() {
		for _, arch := range []string{"amd64", "arm64"} {
			profile, err := ProfileFor(name, arch)
			if err != nil {
				t.Fatal(err)
			}
			want, err := json.Marshal(profile)
			if err != nil {
				t.Fatal(err)
			}
			key, object, reporting := generated(name, arch)
			if object != string(want) {
				t.Errorf("%s for %s: the generated object is stale; run go generate", name, arch)
			}
			if profile, err = ReportingFor(name, arch); err != nil {
				t.Fatal(err)
			}
			if want, err = json.Marshal(profile); err != nil || reporting != string(want) {
				t.Errorf("%s for %s: the generated reporting object is stale; run go generate; %v", name, arch, err)
			}
			if key != HashReportingFor(want, arch) {
				t.Errorf("%s for %s: the generated key is stale; run go generate", name, arch)
			}
		}
	}
}

// TestKeysAgree: a profile has one key by whichever way it comes.
func TestKeysAgree(t *testing.T) {
	for _, name := range Names() {
		profile, err := Profile(name)
		if err != nil {
			t.Fatal(err)
		}
		bySpec, err := HashSpec(profile)
		if err != nil {
			t.Fatal(err)
		}
		object, err := OCI(name)
		if err != nil {
			t.Fatal(err)
		}
		if byJSON := HashJSON([]byte(object)); bySpec != byJSON {
			t.Errorf("%s: keys %s %s", name, bySpec, byJSON)
		}
	}
	if HashJSONFor([]byte("{}"), "amd64") == HashJSONFor([]byte("{}"), "arm64") || HashJSONFor([]byte("{}"), "amd64") == HashReportingFor([]byte("{}"), "amd64") {
		t.Error("two programs share a key")
	}
}

func TestUnknownProfile(t *testing.T) {
	for _, name := range []string{"", "unconfined", "Default", "../default", "default/amd64"} {
		_, err1 := Profile(name)
		_, err2 := HashProfile(name)
		_, err3 := OCI(name)
		for _, err := range []error{err1, err2, err3} {
			if !errors.Is(err, &fault.Fault{Code: fault.InvalidValue}) {
				t.Errorf("%q: got %v, want E1001", name, err)
			}
		}
	}
	if _, err := ProfileFor("default", "riscv64"); !errors.Is(err, &fault.Fault{Code: fault.Seccomp}) {
		t.Errorf("riscv64: got %v, want E2003", err)
	}
	if _, err := HashSpec(nil); !errors.Is(err, &fault.Fault{Code: fault.Seccomp}) {
		t.Errorf("nil: got %v, want E2003", err)
	}
}

// TestSources checks what the form of a profile cannot express: reasons
// stand everywhere, and no call has an unconditional answer beside another.
func TestSources(t *testing.T) {
	for _, name := range Names() {
		data, err := os.ReadFile("profiles/" + name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		decoder := json.NewDecoder(strings.NewReader(string(data)))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(new(source)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		src, err := readSource(name)
		if err != nil {
			t.Fatal(err)
		}
		if src.Summary == "" || src.DefaultErrno == "" {
			t.Errorf("%s: no summary or no default", name)
		}
		unconditional, conditional := map[string]bool{}, map[string]bool{}
		for i, g := range src.Groups {
			if len(g.Reason) < 8 || len(g.Names) == 0 {
				t.Errorf("%s: group %d has no reason or no names", name, i)
			}
			for _, call := range g.Names {
				if unconditional[call] || len(g.Args) == 0 && conditional[call] {
					t.Errorf("%s: %s stands in two groups that exclude each other", name, call)
				}
				if len(g.Args) == 0 {
					unconditional[call] = true
				} else {
					conditional[call] = true
				}
			}
		}
		t.Logf("%s: %d calls named", name, len(unconditional)+len(conditional))
	}
}

// TestWalls pins the decisions that a change of the files must not lose.
func TestWalls(t *testing.T) {
	killed := []string{"kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module"}
	denied := []string{"mount", "umount2", "fsopen", "fsconfig", "fsmount", "fspick", "move_mount", "open_tree", "mount_setattr",
		"pivot_root", "chroot", "unshare", "setns", "ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd",
		"bpf", "perf_event_open", "userfaultfd", "keyctl", "add_key", "request_key", "reboot", "swapon", "quotactl", "acct",
		"syslog", "settimeofday", "clock_settime", "adjtimex", "iopl", "ioperm", "open_by_handle_at", "name_to_handle_at"}
	unlisted := []string{"clone3", "io_uring_setup", "io_uring_enter", "io_uring_register"}
	for _, name := range []string{"default", "network"} {
		profile, err := ProfileFor(name, "amd64")
		if err != nil {
			t.Fatal(err)
		}
		answers := map[string]specs.LinuxSyscall{}
		for _, rule := range profile.Syscalls {
			for _, call := range rule.Names {
				answers[call] = rule
			}
		}
		for _, call := range killed {
			if answers[call].Action != specs.ActKillProcess {
				t.Errorf("%s: %s has %v", name, call, answers[call].Action)
			}
		}
		for _, call := range denied {
			if r := answers[call]; r.Action != specs.ActErrno || *r.ErrnoRet != 1 || len(r.Args) != 0 {
				t.Errorf("%s: %s has %v", name, call, r)
			}
		}
		for _, call := range unlisted {
			if r, found := answers[call]; found {
				t.Errorf("%s: %s has %v, not the default", name, call, r)
			}
		}
		if profile.DefaultAction != specs.ActErrno || *profile.DefaultErrnoRet != 38 || len(profile.Architectures) != 1 {
			t.Errorf("%s: default %v %v %v", name, profile.DefaultAction, *profile.DefaultErrnoRet, profile.Architectures)
		}
	}
}

func BenchmarkHashProfile(b *testing.B) {
	for b.Loop() {
		if _, err := HashProfile("default"); err != nil {
			b.Fatal(err)
		}
	}
}
