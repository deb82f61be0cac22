package cgroup

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// fixture makes the directories (names ending in "/"), symbolic links
// ("a -> b") and files ("name=content") of a cgroup mount.
func fixture(t *testing.T, entries ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, entry := range entries {
		var err error
		if name, target, ok := strings.Cut(entry, " -> "); ok {
			err = os.Symlink(target, filepath.Join(dir, name))
		} else if name, content, ok := strings.Cut(entry, "="); ok {
			if err = os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err == nil {
				err = os.WriteFile(filepath.Join(dir, name), []byte(content+"\n"), 0o644)
			}
		} else {
			err = os.MkdirAll(filepath.Join(dir, entry), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestDetectFixtures(t *testing.T) {
	for name, c := range map[string]struct {
		mode    Mode
		self    string
		tree    []string
		parents []string
		missing []string
		pending []string
	}{
		"no cgroups": {ModeNone, "", nil, []string{}, []string{CPU, IO, Memory, Pids}, nil},
		"v1, one directory under two names, nested": {
			ModeV1, "4:memory:/job/7\n3:cpu,cpuacct:/\n2:pids:/\n1:name=systemd:/x\n",
			[]string{"memory/job/7/", "cpu,cpuacct/", "cpu -> cpu,cpuacct", "cpuacct -> cpu,cpuacct", "pids/"},
			[]string{"cpu", "memory/job/7", "pids"}, []string{IO}, nil,
		},
		"v1 in a container that sees the host's paths": {
			ModeV1, "4:memory:/docker/abc\n2:pids:/docker/abc\n", []string{"memory/", "pids/"},
			[]string{"memory", "pids"}, []string{CPU, IO}, nil,
		},
		"v1 outside its namespace": {
			ModeV1, "4:memory:/../x\n2:pids:/\n", []string{"memory/", "pids/"},
			[]string{"pids"}, []string{CPU, IO, Memory}, nil,
		},
		"hybrid without v2 controllers": {
			ModeHybrid, "5:freezer:/\n4:memory:/\n3:cpuacct:/\n2:pids:/\n1:cpu:/\n6:blkio:/\n0::/\n",
			[]string{"freezer/", "memory/", "cpuacct/", "pids/", "cpu/", "blkio/", "unified/cgroup.controllers=", "unified/cgroup.subtree_control="},
			[]string{"blkio", "cpu", "freezer", "memory", "pids", "unified"}, nil, nil,
		},
		"hybrid with io on v2": {
			ModeHybrid, "4:memory:/\n2:pids:/\n1:cpu:/\n0::/\n",
			[]string{"memory/", "pids/", "cpu/", "unified/cgroup.controllers=io", "unified/cgroup.subtree_control="},
			[]string{"cpu", "memory", "pids", "unified"}, nil, []string{IO},
		},
		"v2, ready": {
			ModeV2, "0::/\n", []string{"cgroup.controllers=cpu io memory pids", "cgroup.subtree_control=cpu io memory pids"},
			[]string{"."}, nil, nil,
		},
		"v2, in our leaf": {
			ModeV2, "0::/a/capsule.leaf\n",
			[]string{"a/capsule.leaf/", "a/cgroup.controllers=cpu io memory pids", "a/cgroup.subtree_control=memory pids"},
			[]string{"a"}, nil, []string{CPU, IO},
		},
		"v2, a controller not delegated": {
			ModeV2, "0::/a/b\n",
			[]string{"cgroup.controllers=cpu io memory pids", "a/b/cgroup.controllers=memory pids", "a/b/cgroup.subtree_control="},
			[]string{"a/b"}, []string{CPU, IO}, []string{Memory, Pids},
		},
	} {
		t.Run(name, func(t *testing.T) {
			mount := fixture(t, c.tree...)
			h, err := detect(mount, c.mode, strings.NewReader(c.self))
			if err != nil {
				t.Fatal(err)
			}
			parents := []string{}
			for _, dir := range h.Parents() {
				relative, err := filepath.Rel(mount, dir)
				if err != nil {
					t.Fatal(err)
				}
				parents = append(parents, relative)
			}
			if !reflect.DeepEqual(parents, c.parents) {
				t.Errorf("parents %v, want %v", parents, c.parents)
			}
			missing := h.Missing()
			for _, name := range c.missing {
				if missing[name] == "" {
					t.Errorf("%s is not missing", name)
				}
				delete(missing, name)
			}
			if len(missing) > 0 {
				t.Errorf("missing too: %v", missing)
			}
			if u := h.unified(); u != nil && strings.Join(u.pending, " ") != strings.Join(c.pending, " ") {
				t.Errorf("pending %v, want %v", u.pending, c.pending)
			}
		})
	}
}

func TestMalformedMembershipIsAnError(t *testing.T) {
	if _, err := detect(t.TempDir(), ModeV1, strings.NewReader("nonsense\n")); err == nil {
		t.Error("accepted")
	}
}
