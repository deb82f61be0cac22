package seccomp

import (
	"reflect"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestStricterRuleHolds(t *testing.T) {
	allow := specs.LinuxSyscall{Names: []string{"clone", "setns"}, Action: specs.ActAllow}
	refuse := specs.LinuxSyscall{Names: []string{"setns"}, Action: specs.ActErrno}
	some := specs.LinuxSyscall{Names: []string{"setns"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 1}}}
	in := &specs.LinuxSeccomp{Syscalls: []specs.LinuxSyscall{allow, refuse, some}}
	out, twice := Decided(in)
	want := []specs.LinuxSyscall{{Names: []string{"clone"}, Action: specs.ActAllow}, refuse, some}
	if !reflect.DeepEqual(out.Syscalls, want) || !reflect.DeepEqual(twice, []string{"setns"}) {
		t.Errorf("%+v %v", out.Syscalls, twice)
	}
	if len(in.Syscalls[0].Names) != 2 {
		t.Error("what was given is changed")
	}
	if out, twice := Decided(&specs.LinuxSeccomp{Syscalls: []specs.LinuxSyscall{allow, some}}); len(twice) > 0 || len(out.Syscalls) != 2 {
		t.Errorf("%+v %v", out, twice)
	}
}
