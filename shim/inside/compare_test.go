package inside

import (
	"strings"
	"testing"
)

func view(mounts ...string) *View {
	v := &View{IDs: map[string]string{"uid": "0 0 0 0"}, Capabilities: map[string]string{"CapBnd": "00000000000000f0", "NoNewPrivs": "1"},
		Limits: map[string]string{}, Mounts: map[string]string{}, Place: map[string]string{"entries of /dev": "null pts"}, Cgroup: map[string]string{}}
	for _, m := range mounts {
		at, what, _ := strings.Cut(m, " ")
		v.Mounts[at] = what
	}
	return v
}

// TestCompare pins what is a difference, what is stricter, and what is neither.
func TestCompare(t *testing.T) {
	for name, c := range map[string]struct {
		ours, theirs *View
		want         string // "": none, else "different" or "stricter"
	}{
		"same":             {view("/ ext4 ro"), view("/ ext4 ro"), ""},
		"more flags":       {view("/ ext4 nodev,nosuid,ro"), view("/ ext4 ro"), "stricter"},
		"fewer flags":      {view("/ ext4 nosuid,rw"), view("/ ext4 ro"), "different"},
		"writable":         {view("/ ext4 rw"), view("/ ext4 ro"), "different"},
		"other type":       {view("/tmp tmpfs rw"), view("/tmp ext4 rw"), "different"},
		"other size":       {view("/tmp tmpfs rw,size=4k"), view("/tmp tmpfs rw,size=8k"), "different"},
		"missing":          {view(), view("/data ext4 ro"), "different"},
		"one more":         {view("/data ext4 ro"), view(), "different"},
		"covers more":      {view("/proc/keys devtmpfs rw"), view(), "stricter"},
		"covers less":      {view(), view("/proc/keys tmpfs rw"), "different"},
		"covers otherwise": {view("/masked devtmpfs rw"), view("/masked tmpfs ro"), ""},
		"device":           {view("/dev/null devtmpfs rw"), view(), ""},
	} {
		got := ""
		for _, d := range Compare(c.ours, c.theirs, []string{"/masked", "/proc/keys"}) {
			got = "different"
			if d.Stricter {
				got = "stricter"
			}
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	for change, want := range map[string]bool{"0000000000000070": true, "00000000000000f1": false} {
		ours := view()
		ours.Capabilities["CapBnd"] = change
		if d := Compare(ours, view(), nil); len(d) != 1 || d[0].Stricter != want {
			t.Errorf("%s: %+v", change, d)
		}
	}
	ours := view()
	ours.IDs["uid"] = "1 1 1 1"
	if d := Compare(ours, view(), nil); len(d) != 1 || d[0].What != "ids" || d[0].Stricter {
		t.Errorf("%+v", d)
	}
}

// TestView wants something in each part of the view of this process.
func TestView(t *testing.T) {
	var b strings.Builder
	if err := Main(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"uid":`, `"CapBnd":`, `"Max open files":`, `"/proc":`, `"working directory":`, `"processes":`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in %s", want, b.String())
		}
	}
}
