package host

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/capsule-run/capsule/shim/bundle"
)

// TestBlockDevices: disks with a size, each once; no paths of multipath disks.
func TestBlockDevices(t *testing.T) {
	dir := t.TempDir()
	for path, content := range map[string]string{
		"vda/dev": "254:0\n", "vda/size": "536870912\n", "vda/hidden": "0\n",
		"loop0/dev": "7:0\n", "loop0/size": "0\n",
		"nvme0c0n1/dev": "259:1\n", "nvme0c0n1/size": "100\n", "nvme0c0n1/hidden": "1\n",
		"dm-0/dev": "253:0\n", "dm-0/size": "100\n",
		"odd/dev": "x\n", "odd/size": "1\n",
	} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, path), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := blockDevices(dir)
	if want := []bundle.Device{{Major: 253, Minor: 0}, {Major: 254, Minor: 0}}; err != nil || !slices.Equal(have, want) {
		t.Errorf("%v, %v; want %v", have, err, want)
	}
	if have, err := blockDevices(dir + "/none"); err != nil || have != nil {
		t.Errorf("without sysfs: %v, %v", have, err)
	}
}
