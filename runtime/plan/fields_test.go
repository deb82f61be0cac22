package plan

import (
	"cmp"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/hack/specfields"
	"github.com/capsule-run/capsule/spec/fault"
)

// otherwise are two values of a field, in place of %, in the part of a configuration that
// it needs about it.
type otherwise struct {
	at, part, one, other string
	base                 string // another configuration than that of a user namespace
}

// fieldValues are the fields of a configuration that decide about its plan.
var fieldValues = map[string]otherwise{
	"process.terminal":                   {"process.terminal", `%`, "true", "false", ""},
	"process.user.uid":                   {"process.user.uid", `%`, "1", "2", ""},
	"process.user.gid":                   {"process.user.gid", `%`, "1", "2", ""},
	"process.user.umask":                 {"process.user.umask", `%`, "0", "7", ""},
	"process.user.additionalGids[]":      {"process.user.additionalGids", `[%]`, "5", "6", ""},
	"process.user.username":              {"process.user.username", `%`, `"me"`, `"you"`, ""},
	"process.args[]":                     {"process.args", `["/bin/echo",%]`, `"a"`, `"b"`, ""},
	"process.commandLine":                {"process.commandLine", `%`, `"dir"`, `"cls"`, ""},
	"process.env[]":                      {"process.env", `[%]`, `"A=1"`, `"A=2"`, ""},
	"process.cwd":                        {"process.cwd", `%`, `"/tmp"`, `"/"`, ""},
	"process.capabilities.bounding[]":    {"process.capabilities", `{"bounding":[%]}`, `"CAP_KILL"`, `"CAP_CHOWN"`, ""},
	"process.capabilities.effective[]":   {"process.capabilities", `{"bounding":["CAP_KILL","CAP_CHOWN"],"permitted":["CAP_KILL","CAP_CHOWN"],"effective":[%]}`, `"CAP_KILL"`, `"CAP_CHOWN"`, ""},
	"process.capabilities.inheritable[]": {"process.capabilities", `{"bounding":["CAP_KILL","CAP_CHOWN"],"permitted":["CAP_KILL","CAP_CHOWN"],"inheritable":[%]}`, `"CAP_KILL"`, `"CAP_CHOWN"`, ""},
	"process.capabilities.permitted[]":   {"process.capabilities", `{"bounding":["CAP_KILL","CAP_CHOWN"],"permitted":[%]}`, `"CAP_KILL"`, `"CAP_CHOWN"`, ""},
	"process.capabilities.ambient[]":     {"process.capabilities", `{"bounding":["CAP_KILL","CAP_CHOWN"],"permitted":["CAP_KILL","CAP_CHOWN"],"inheritable":["CAP_KILL","CAP_CHOWN"],"ambient":[%]}`, `"CAP_KILL"`, `"CAP_CHOWN"`, ""},
	"process.rlimits[].type":             {"process.rlimits", `[{"type":%,"soft":1,"hard":2}]`, `"RLIMIT_CORE"`, `"RLIMIT_NOFILE"`, ""},
	"process.rlimits[].soft":             {"process.rlimits", `[{"type":"RLIMIT_CORE","soft":%,"hard":2}]`, `0`, `1`, ""},
	"process.rlimits[].hard":             {"process.rlimits", `[{"type":"RLIMIT_CORE","soft":1,"hard":%}]`, `1`, `2`, ""},
	"process.noNewPrivileges":            {"process.noNewPrivileges", `%`, "true", "false", ""},
	"process.apparmorProfile":            {"process.apparmorProfile", `%`, `"a"`, `"b"`, ""},
	"process.scheduler.policy":           {"process.scheduler", `{"policy":%}`, `"SCHED_OTHER"`, `"SCHED_BATCH"`, ""},
	"process.scheduler.nice":             {"process.scheduler", `{"policy":"SCHED_OTHER","nice":%}`, `1`, `2`, ""},
	"process.scheduler.priority":         {"process.scheduler", `{"policy":"SCHED_FIFO","priority":%}`, `1`, `2`, ""},
	"process.scheduler.flags[]":          {"process.scheduler", `{"policy":"SCHED_OTHER","flags":[%]}`, `"SCHED_FLAG_RESET_ON_FORK"`, `"SCHED_FLAG_RECLAIM"`, ""},
	"process.scheduler.runtime":          {"process.scheduler", `{"policy":"SCHED_DEADLINE","runtime":%,"deadline":90000,"period":90000}`, `20000`, `30000`, ""},
	"process.scheduler.deadline":         {"process.scheduler", `{"policy":"SCHED_DEADLINE","runtime":20000,"deadline":%,"period":90000}`, `70000`, `80000`, ""},
	"process.scheduler.period":           {"process.scheduler", `{"policy":"SCHED_DEADLINE","runtime":20000,"deadline":70000,"period":%}`, `80000`, `90000`, ""},
	"process.selinuxLabel":               {"process.selinuxLabel", `%`, `"a"`, `"b"`, ""},
	"process.ioPriority.class":           {"process.ioPriority", `{"class":%,"priority":1}`, `"IOPRIO_CLASS_BE"`, `"IOPRIO_CLASS_RT"`, ""},
	"process.ioPriority.priority":        {"process.ioPriority", `{"class":"IOPRIO_CLASS_BE","priority":%}`, `1`, `2`, ""},
	"root.path":                          {"root.path", `%`, `"/srv/one"`, `"/srv/two"`, ""},
	"root.readonly":                      {"root.readonly", `%`, "true", "false", ""},
	"hostname":                           {"hostname", `%`, `"a"`, `"b"`, ""},
	"domainname":                         {"domainname", `%`, `"a"`, `"b"`, ""},
	"mounts[].destination":               {"mounts", `[{"destination":%,"type":"tmpfs","source":"tmpfs"}]`, `"/a"`, `"/b"`, ""},
	"mounts[].type":                      {"mounts", `[{"destination":"/a","type":%,"source":"x"}]`, `"tmpfs"`, `"mqueue"`, ""},
	"mounts[].source":                    {"mounts", `[{"destination":"/a","type":"bind","source":%,"options":["bind"]}]`, `"/srv/data"`, `"/srv/more"`, ""},
	"mounts[].options[]":                 {"mounts", `[{"destination":"/a","type":"tmpfs","source":"tmpfs","options":[%]}]`, `"ro"`, `"noexec"`, ""},
	"mounts[].uidMappings[].containerID": mapped(`{"containerID":%,"hostID":100000,"size":10}`, "uid"),
	"mounts[].uidMappings[].hostID":      mapped(`{"containerID":0,"hostID":%,"size":10}`, "uid"),
	"mounts[].uidMappings[].size":        mapped(`{"containerID":0,"hostID":100000,"size":%}`, "uid"),
	"mounts[].gidMappings[].containerID": mapped(`{"containerID":%,"hostID":100000,"size":10}`, "gid"),
	"mounts[].gidMappings[].hostID":      mapped(`{"containerID":0,"hostID":%,"size":10}`, "gid"),
	"mounts[].gidMappings[].size":        mapped(`{"containerID":0,"hostID":100000,"size":%}`, "gid"),
	"linux.uidMappings[].containerID":    {"linux.uidMappings", `[{"containerID":0,"hostID":7,"size":1},{"containerID":%,"hostID":100000,"size":10}]`, "1", "2", ""},
	"linux.uidMappings[].hostID":         {"linux.uidMappings", `[{"containerID":0,"hostID":%,"size":10}]`, "100000", "100001", ""},
	"linux.uidMappings[].size":           {"linux.uidMappings", `[{"containerID":0,"hostID":100000,"size":%}]`, "10", "11", ""},
	"linux.gidMappings[].containerID":    {"linux.gidMappings", `[{"containerID":0,"hostID":7,"size":1},{"containerID":%,"hostID":100000,"size":10}]`, "1", "2", ""},
	"linux.gidMappings[].hostID":         {"linux.gidMappings", `[{"containerID":0,"hostID":%,"size":10}]`, "100000", "100001", ""},
	"linux.gidMappings[].size":           {"linux.gidMappings", `[{"containerID":0,"hostID":100000,"size":%}]`, "10", "11", ""},
	"linux.sysctl{}":                     {"linux.sysctl", `{"kernel.shmmni":%}`, `"1"`, `"2"`, ""},
	"linux.namespaces[].type":            {"linux.namespaces", `[{"type":"mount"},{"type":"user"},{"type":"uts"},{"type":%}]`, `"pid"`, `"network"`, ""},
	"linux.namespaces[].path":            {"linux.namespaces", `[{"type":"mount"},{"type":"user"},{"type":"uts"},{"type":"network","path":%}]`, `"/proc/1/ns/net"`, `"/proc/2/ns/net"`, ""},
	"linux.devices[].path":               {"linux.devices", `[{"path":%,"type":"c","major":1,"minor":3}]`, `"/dev/a"`, `"/dev/b"`, ""},
	"linux.devices[].type":               {"linux.devices", `[{"path":"/dev/a","type":%,"major":1,"minor":3}]`, `"c"`, `"p"`, ""},
	"linux.devices[].major":              {"linux.devices", `[{"path":"/dev/a","type":"c","major":%,"minor":3}]`, `1`, `2`, "host-user"},
	"linux.devices[].minor":              {"linux.devices", `[{"path":"/dev/a","type":"c","major":1,"minor":%}]`, `3`, `5`, "host-user"},
	"linux.devices[].fileMode":           {"linux.devices", `[{"path":"/dev/a","type":"c","major":1,"minor":3,"fileMode":%}]`, `384`, `420`, "host-user"},
	"linux.devices[].uid":                {"linux.devices", `[{"path":"/dev/a","type":"c","major":1,"minor":3,"uid":%}]`, `1`, `2`, "host-user"},
	"linux.devices[].gid":                {"linux.devices", `[{"path":"/dev/a","type":"c","major":1,"minor":3,"gid":%}]`, `1`, `2`, "host-user"},
	"linux.rootfsPropagation":            {"linux.rootfsPropagation", `%`, `"private"`, `"shared"`, ""},
	"linux.maskedPaths[]":                {"linux.maskedPaths", `[%]`, `"/proc/keys"`, `"/proc/acpi"`, ""},
	"linux.readonlyPaths[]":              {"linux.readonlyPaths", `[%]`, `"/proc/sys"`, `"/proc/bus"`, ""},
	"linux.mountLabel":                   {"linux.mountLabel", `%`, `"a"`, `"b"`, ""},
	"linux.netDevices{}.name":            {"linux.netDevices", `{"eth1":{"name":%}}`, `"a"`, `"b"`, ""},
	"linux.intelRdt.closID":              {"linux.intelRdt", `{"closID":%}`, `"a"`, `"b"`, ""},
	"linux.intelRdt.schemata[]":          {"linux.intelRdt", `{"schemata":[%]}`, `"a"`, `"b"`, ""},
	"linux.intelRdt.l3CacheSchema":       {"linux.intelRdt", `{"l3CacheSchema":%}`, `"a"`, `"b"`, ""},
	"linux.intelRdt.memBwSchema":         {"linux.intelRdt", `{"memBwSchema":%}`, `"a"`, `"b"`, ""},
	"linux.intelRdt.enableMonitoring":    {"linux.intelRdt", `{"enableMonitoring":%}`, `true`, `false`, ""},
	"linux.memoryPolicy.mode":            {"linux.memoryPolicy", `{"mode":%,"nodes":"0"}`, `"MPOL_BIND"`, `"MPOL_INTERLEAVE"`, ""},
	"linux.memoryPolicy.nodes":           {"linux.memoryPolicy", `{"mode":"MPOL_BIND","nodes":%}`, `"0"`, `"1"`, ""},
	"linux.memoryPolicy.flags[]":         {"linux.memoryPolicy", `{"mode":"MPOL_BIND","nodes":"0","flags":[%]}`, `"MPOL_F_STATIC_NODES"`, `"MPOL_F_RELATIVE_NODES"`, ""},
	"linux.personality.domain":           {"linux.personality", `{"domain":%}`, `"LINUX"`, `"LINUX32"`, ""},
	"linux.personality.flags[]":          {"linux.personality", `{"domain":"LINUX","flags":[%]}`, `"a"`, `"b"`, ""},
	"solaris":                            {"solaris", `{"milestone":%}`, `"a"`, `"b"`, ""},
	"windows":                            {"windows", `{"layerFolders":[%]}`, `"a"`, `"b"`, ""},
	"vm":                                 {"vm", `{"kernel":{"path":%}}`, `"a"`, `"b"`, ""},
	"zos":                                {"zos", `{"namespaces":[{"type":%}]}`, `"a"`, `"b"`, ""},
	"freebsd":                            {"freebsd", `{"devices":[{"path":%}]}`, `"a"`, `"b"`, ""},
}

func mapped(line, which string) otherwise {
	whole := `{"containerID":0,"hostID":100000,"size":10}`
	maps := map[string]string{"uid": whole, "gid": whole}
	maps[which] = line
	o := otherwise{"mounts", `[{"destination":"/a","type":"bind","source":"/srv/data","options":["bind"],"uidMappings":[` + maps["uid"] + `],"gidMappings":[` + maps["gid"] + `]}]`, "5", "6", ""}
	if strings.Contains(line, `"hostID":%`) {
		o.one, o.other = "100005", "100006"
	}
	return o
}

// elsewhere are the fields that no step is made of, with what looks after them.
var elsewhere = map[string]string{
	"ociVersion":              "runtime/container Load",
	"annotations":             "they say nothing to a runtime but run.capsule.init, and the skeleton of a root of capsule's own",
	"hooks":                   "Facts.Container.Hooks stops the container for them; runtime/container runs them, see TestHooks of cmd/capsule-oci",
	"process.consoleSize":     "runtime/container sets it on the master, see TestTerminal of cmd/capsule-oci",
	"process.oomScoreAdj":     "runtime/container writes it before the first step, see TestLaterProcess of cmd/capsule-oci",
	"process.execCPUAffinity": "of later processes alone, see TestExecAffinity of cmd/capsule-oci",
	"linux.cgroupsPath":       "runtime/container/resources makes the group",
	"linux.resources":         "runtime/container/resources, see TestEveryResource there",
	"linux.seccomp":           "runtime/seccomp compiles it into Facts.Filter",
	"linux.timeOffsets":       "runtime/launch writes them between the clone and the first step, see TestTimeOffsets of cmd/capsule-oci",
}

// TestEveryField: each field of a configuration changes the plan or is refused by name, or
// something else looks after it. None is passed over.
func TestEveryField(t *testing.T) {
	for _, path := range specfields.Leaves(reflect.TypeFor[specs.Spec]()) {
		platform, _, _ := strings.Cut(path, ".")
		o, known := fieldValues[path]
		if !known {
			o, known = fieldValues[platform]
		}
		switch {
		case known:
			differs(t, path, o)
		case !covered(path):
			t.Errorf("%s is new, and nothing says what becomes of it", path)
		}
	}
}

// covered tells whether something outside the plan looks after a field.
func covered(path string) bool {
	for other := range elsewhere {
		if path == other || strings.HasPrefix(path, other) && strings.ContainsAny(path[len(other):][:1], ".[{") {
			return true
		}
	}
	return false
}

// differs compiles both values of a field.
func differs(t *testing.T, path string, o otherwise) {
	t.Helper()
	one, err := withField(t, o, strings.Replace(o.part, "%", o.one, 1))
	var f *fault.Fault
	if list := (fault.List)(nil); errors.As(err, &list) {
		f = list[0]
	} else if err != nil {
		f = fault.From(err, "")
	}
	if f != nil {
		if f.Field != o.at && !strings.HasPrefix(path, strings.TrimSuffix(f.Field, "[0]")) {
			t.Errorf("%s is refused as %v", path, err)
		}
		return
	}
	other, err := withField(t, o, strings.Replace(o.part, "%", o.other, 1))
	if err != nil {
		t.Errorf("%s: %v", path, err)
	} else if reflect.DeepEqual(one, other) {
		t.Errorf("%s changes nothing and is not refused", path)
	}
}

// withField compiles a container in which one part of the configuration is another.
func withField(t *testing.T, o otherwise, part string) (*Plan, error) {
	t.Helper()
	text, err := os.ReadFile("testdata/container/" + cmp.Or(o.base, "user-namespace") + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var whole map[string]any
	if err := json.Unmarshal(text, &whole); err != nil {
		t.Fatal(err)
	}
	keys := strings.Split(o.at, ".")
	parent := whole
	for _, key := range keys[:len(keys)-1] {
		parent = parent[key].(map[string]any)
	}
	parent[keys[len(keys)-1]] = json.RawMessage(part)
	if text, err = json.Marshal(whole); err != nil {
		t.Fatal(o.at, part, err)
	}
	var s specs.Spec
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(o.at, part, err)
	}
	f := containerFacts()
	for _, path := range []string{"/srv/more", "/proc/sys", "/proc/bus", "/proc/acpi"} {
		f.Kinds[path] = KindDir
	}
	f.Container.AppArmor, f.Container.SELinux = true, true
	return Container(&s, f)
}
