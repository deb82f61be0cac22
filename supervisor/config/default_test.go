package config

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// write makes a file in a directory of its own.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func noEnv(string) (string, bool) { return "", false }

// TestDefaultFileChangesNothing: what `config default` prints has every key, and
// each with its default.
func TestDefaultFileChangesNothing(t *testing.T) {
	c, err := Load([]string{write(t, "default.toml", string(DefaultFile()))}, noEnv)
	if err != nil {
		t.Fatalf("%v\n%s", err, DefaultFile())
	}
	d := Default()
	if !reflect.DeepEqual(c.Security, d.Security) || !reflect.DeepEqual(c.Limits, d.Limits) || c.Daemon != d.Daemon || c.State != d.State || c.Monitoring != d.Monitoring || c.Pool != d.Pool {
		t.Errorf("got %+v, want %+v", c, d)
	}
	got, err := c.Base("", 0)
	if err != nil {
		t.Fatal(err)
	}
	want, err := d.Base("", 0)
	if err != nil {
		t.Fatal(err)
	}
	if string(got.Encode()) != string(want.Encode()) {
		t.Errorf("defaults differ:\n%s\n%s", got.Encode(), want.Encode())
	}
}
