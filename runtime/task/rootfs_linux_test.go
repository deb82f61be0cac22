package task

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/wire"
	"github.com/capsule-run/capsule/spec/fault"
)

func mountOf(kind, source string, options ...string) wire.Message {
	m := wire.Message(nil).PutString(1, kind).PutString(2, source)
	for _, o := range options {
		m = m.PutString(4, o)
	}
	return m
}

// TestManyLayers mounts an overlay whose layers do not fit into the one page that mount(2)
// takes, and takes it away.
func TestManyLayers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounts need root")
	}
	dir, target := t.TempDir(), filepath.Join(t.TempDir(), "rootfs")
	var layers []string
	for i := range 60 {
		layer := filepath.Join(dir, strings.Repeat("long", 20), fmt.Sprint(i))
		if err := os.MkdirAll(layer, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(layer, fmt.Sprint("file", i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		layers = append(layers, layer)
	}
	overlay := mountOf("overlay", "overlay", "lowerdir="+strings.Join(layers, ":"), "ro")
	if err := mountRootfs(target, []wire.Message{overlay}); err != nil {
		t.Fatal(err)
	}
	defer unmountRootfs(target)
	for _, name := range []string{"file0", "file59"} {
		if _, err := os.Stat(filepath.Join(target, name)); err != nil {
			t.Error(err)
		}
	}
	if err := os.WriteFile(filepath.Join(target, "new"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("a read-only root takes a file: %v", err)
	}
	unmountRootfs(target)
	if left, err := os.ReadDir(target); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestBindIsReadOnly: flags of a bind take a second call.
func TestBindIsReadOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounts need root")
	}
	target := filepath.Join(t.TempDir(), "rootfs")
	if err := mountRootfs(target, []wire.Message{mountOf("bind", t.TempDir(), "rbind", "ro")}); err != nil {
		t.Fatal(err)
	}
	defer unmountRootfs(target)
	if err := os.WriteFile(filepath.Join(target, "new"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("a read-only root takes a file: %v", err)
	}
}

// TestRefused: what is not done is refused by its name, and a failure leaves no mount.
func TestRefused(t *testing.T) {
	options := func(fields ...int) wire.Message {
		var m wire.Message
		for _, f := range fields {
			m = m.PutString(f, "x")
		}
		return wire.Message(nil).PutString(1, "containerd.runc.v1.Options").Put(2, m)
	}
	for field, encoded := range map[string]wire.Message{
		"options.BinaryName": options(6), "options.Root": options(7), "options.ShimCgroup": options(3),
		"options.CriuImagePath": options(10), "options.TaskApiAddress": options(12), "options": wire.Message(nil).PutString(1, "other.Options"),
		"options.ConfigPath": wire.Message(nil).PutString(1, "runtimeoptions.v1.Options").Put(2, wire.Message(nil).PutString(2, "/etc/x.toml")),
	} {
		_, err := optionsOf(encoded)
		var f *fault.Fault
		if !errors.As(err, &f) || f.Code != fault.Unsupported || f.Field != field || f.Hint == "" {
			t.Errorf("%s: %v", field, err)
		}
	}
	if o, err := optionsOf(wire.Message(nil).PutString(1, "containerd.runc.v1.Options").Put(2, wire.Message(nil).PutBool(9, true))); err != nil || !o.systemd {
		t.Errorf("SystemdCgroup: %+v, %v", o, err)
	}
	for url, first := range map[string]int{"containerd.runc.v1.Options": 4, "containerd.linux.runc.CreateOptions": 10} {
		o, err := optionsOf(wire.Message(nil).PutString(1, url).Put(2, wire.Message(nil).PutUint(first, 7).PutUint(first+1, 8)))
		if err != nil || o.uid != 7 || o.gid != 8 {
			t.Errorf("%s: %+v, %v", url, o, err)
		}
	}
	target := filepath.Join(t.TempDir(), "rootfs")
	for field, m := range map[string]wire.Message{"rootfs[0].options": mountOf("ext4", "/dev/x", "loop"), "rootfs[0].target": mountOf("bind", "/").PutString(3, "/sub")} {
		var f *fault.Fault
		if err := mountRootfs(target, []wire.Message{m}); !errors.As(err, &f) || f.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}
