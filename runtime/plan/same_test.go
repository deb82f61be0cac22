package plan

import (
	"reflect"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestSameSandbox: commands, their environment and limits may differ;
// whatever stands around them may not.
func TestSameSandbox(t *testing.T) {
	facts := Facts{BundleDir: "/bundle", Filter: make([]byte, 16), Listener: 8, FilterFirst: true, Tasks: 2}
	compile := func(change func(*specs.Spec, *Facts)) *Plan {
		s, f := bare(), facts
		s.Linux.Seccomp = &specs.LinuxSeccomp{}
		s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 10, Hard: 10}}
		change(s, &f)
		p, err := Compile(s, f)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	template := compile(func(*specs.Spec, *Facts) {})
	for name, tc := range map[string]struct {
		change func(*specs.Spec, *Facts)
		same   bool
	}{
		"nothing":     {func(*specs.Spec, *Facts) {}, true},
		"command":     {func(s *specs.Spec, _ *Facts) { s.Process.Args = []string{"sh", "-c", "true"} }, true},
		"environment": {func(s *specs.Spec, _ *Facts) { s.Process.Env = []string{"A=b"} }, true},
		"directory":   {func(s *specs.Spec, _ *Facts) { s.Process.Cwd = "/" }, false},
		"rlimits":     {func(s *specs.Spec, _ *Facts) { s.Process.Rlimits[0].Soft = 5 }, true},
		"no stdin":    {func(_ *specs.Spec, f *Facts) { f.NoStdin = true }, true},
		"user":        {func(s *specs.Spec, _ *Facts) { s.Process.User.UID = 7 }, false},
		"hostname":    {func(s *specs.Spec, _ *Facts) { s.Hostname = "other" }, false},
		"filter":      {func(_ *specs.Spec, f *Facts) { f.Filter = append(make([]byte, 15), 1) }, false},
		"listener":    {func(_ *specs.Spec, f *Facts) { f.Listener = 0 }, false},
		"host ids":    {func(s *specs.Spec, _ *Facts) { s.Linux.UIDMappings[0].HostID++ }, false},
		"cgroups":     {func(_ *specs.Spec, f *Facts) { f.Tasks = 3 }, false},
		"namespace": {func(s *specs.Spec, _ *Facts) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "network"})
		}, false},
		"root":                    {func(s *specs.Spec, _ *Facts) { s.Root.Readonly = false }, false},
		"directory of the bundle": {func(_ *specs.Spec, f *Facts) { f.BundleDir = "/elsewhere" }, false},
		"mount": {func(s *specs.Spec, _ *Facts) {
			s.Mounts = []specs.Mount{{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=65536"}}}
		}, false},
	} {
		p := compile(tc.change)
		if template.SameSandbox(p) != tc.same || p.SameSandbox(template) != tc.same {
			t.Errorf("%s: same %v, want %v", name, !tc.same, tc.same)
		}
	}
}

// TestSameSandboxComparesEverything: each field of a plan, of its steps, arguments and
// sources makes two plans different, but for those that only tell of it.
func TestSameSandboxComparesEverything(t *testing.T) {
	whole := func() *Plan {
		return &Plan{Setup: []Step{{Args: []Arg{{Vec: []string{"a"}}}}}, Sources: []Source{{}}}
	}
	for name, of := range map[string]func(*Plan) any{
		"Plan": func(p *Plan) any { return p }, "Step": func(p *Plan) any { return &p.Setup[0] },
		"Arg": func(p *Plan) any { return &p.Setup[0].Args[0] }, "Source": func(p *Plan) any { return &p.Sources[0] },
	} {
		fields := reflect.TypeOf(of(whole())).Elem()
		for i := range fields.NumField() {
			p := whole()
			change(reflect.ValueOf(of(p)).Elem().Field(i))
			field := name + "." + fields.Field(i).Name
			tells := map[string]bool{"Plan.Command": true, "Step.Field": true, "Step.Path": true, "Arg.Note": true, "Source.Field": true}[field]
			if whole().SameSandbox(p) != tells {
				t.Errorf("%s: same %v", field, !tells)
			}
		}
	}
}

// change makes a value another one.
func change(v reflect.Value) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(v.Uint() + 1)
	case reflect.Slice:
		v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
	default:
		panic("a kind that no plan has had: " + v.Kind().String())
	}
}
