package host

import "testing"

func TestPolicy(t *testing.T) {
	y := policy{state: "/var/lib/x/state", allowed: []string{"/etc/ssl", "/run/shared"}}
	cases := []struct {
		path    string
		refused refusal
	}{
		{"/", refusedState}, // an ancestor of the state directory too
		{"/proc", refusedSystem}, {"/proc/1", refusedSystem}, {"/sys/fs/cgroup", refusedSystem},
		{"/dev", refusedSystem}, {"/dev/shm", refusedSystem}, {"/run", refusedSystem}, {"/run/docker.sock", refusedSystem},
		{"/boot", refusedSystem}, {"/etc", refusedSystem}, {"/etc/shadow", refusedSystem},
		{"/home", refusedAll}, {"/home/u", ""}, {"/root", refusedAll}, {"/root/project", ""},
		{"/var", refusedState}, {"/var/lib/x", refusedState}, {"/var/lib/x/state", refusedState},
		{"/var/lib/x/state/executions", refusedState}, {"/var/lib/x/stateful", ""}, {"/var/lib/y", ""},
		{"/etc/ssl", ""}, {"/etc/ssl/certs", ""}, {"/etc/ssl2", refusedSystem}, {"/run/shared/a", ""},
		{"/process", ""}, {"/devel", ""}, {"/usr", ""}, {"/srv/data", ""}, {"/tmp", ""},
	}
	for _, c := range cases {
		if got := y.check(c.path, useReadable); got != c.refused {
			t.Errorf("%s: %q, want %q", c.path, got, c.refused)
		}
	}
	if got := (policy{}).check("/", useReadable); got != refusedAll {
		t.Errorf("/ without a state directory: %q", got)
	}
	open := policy{allowed: []string{"/"}, state: "/srv/state"}
	if open.check("/etc", useReadable) != "" || open.check("/srv", useReadable) != refusedState {
		t.Error("configuration opens everything but the state directory")
	}
}
