package scope

import (
	"strings"

	"github.com/capsule-run/capsule/spec/fault"
)

// Unit is a scope and the slice that it is in, both by their full names.
type Unit struct {
	Name  string `json:"name"`
	Slice string `json:"slice"`
}

// Property is one of systemd.resource-control(5), and the version of systemd that brought it.
type Property struct {
	Name  string
	Value any
	Since int
}

// Parse reads linux.cgroupsPath as the systemd driver has it: SLICE:PREFIX:NAME. An empty
// slice is system.slice, and an empty path the scope capsule-oci-ID.scope in it.
func Parse(path, id string) (Unit, error) {
	if path == "" {
		path = ":capsule-oci:" + id
	}
	bad := func(why string) (Unit, error) {
		return Unit{}, fault.New(fault.InvalidBundle, "name scope", why).WithField("linux.cgroupsPath").WithPath(path).
			WithHint("The systemd driver wants SLICE:PREFIX:NAME; without --systemd-cgroup the path is one of the cgroup file system.")
	}
	parts := strings.Split(path, ":")
	if len(parts) != 3 || parts[2] == "" {
		return bad("is not SLICE:PREFIX:NAME")
	}
	u := Unit{Slice: parts[0], Name: parts[2] + ".scope"}
	if parts[1] != "" {
		u.Name = parts[1] + "-" + u.Name
	}
	if u.Slice == "" {
		u.Slice = "system.slice"
	}
	for _, name := range []string{u.Name, u.Slice} {
		// systemd.unit(5): 255 of these.
		if len(name) > 255 || strings.ContainsFunc(name, notOfUnits) {
			return bad("has what no unit of systemd may have in its name")
		}
	}
	if !strings.HasSuffix(u.Slice, ".slice") {
		return bad("names no slice")
	}
	return u, nil
}

func notOfUnits(r rune) bool {
	letter := r|0x20 >= 'a' && r|0x20 <= 'z'
	return !letter && (r < '0' || r > '9') && !strings.ContainsRune(`:-_.\@`, r)
}
