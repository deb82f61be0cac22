package walls

import (
	"bufio"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/hack/walls/attack"
	"github.com/capsule-run/capsule/runtime/plan"
)

var (
	// sharedNetwork leaves the sandbox in the host's network namespace. The
	// steps that bring loopback up would touch the host's.
	sharedNetwork = func(p *plan.Plan) {
		sharing(plan.CloneNewNet)(p)
		dropping(func(s *plan.Step) bool { return s.Path == "lo" })(p)
	}
	// A message queue file system belongs to an ipc namespace, and only its
	// owner mounts it.
	sharedIPC = []any{withoutMount("/dev/mqueue"), sharing(plan.CloneNewIPC)}
	// So does proc to a pid namespace: the host's is shown instead.
	sharedPIDs = []any{sharing(plan.CloneNewPID), func(s *specs.Spec) {
		*mountAt(s, "/proc") = specs.Mount{Destination: "/proc", Type: "bind", Source: "/proc", Options: []string{"rbind"}}
		s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
	}}
	sharedUTS = []any{sharing(plan.CloneNewUTS), droppingOp(plan.OpSethostname, "")}
)

// TestNamespaces compares each namespace with the host's.
func TestNamespaces(t *testing.T) {
	inside := func(b box) []string { return strings.Fields(b.attack(t, "namespaces")["namespaces"]) }
	own := map[string]string{}
	var names []string
	for _, name := range attack.NamespaceNames {
		if target, err := os.Readlink("/proc/self/ns/" + name); err == nil {
			own[name] = target
			names = append(names, name)
		}
	}
	full := inside(box{})
	if len(full) != len(names) {
		t.Fatalf("inside: %v, here: %v", full, names)
	}
	for _, name := range names {
		if slices.Contains(full, own[name]) {
			t.Errorf("%s is the host's", own[name])
		}
	}
	for name, b := range map[string]box{
		"net": box{}.with(sharedNetwork), "ipc": box{}.with(sharedIPC...), "pid": box{}.with(sharedPIDs...), "uts": box{}.with(sharedUTS...),
		"cgroup": box{}.with(droppingOp(plan.OpUnshare, "")), "time": box{}.with(sharing(plan.CloneNewTime)),
	} {
		if own[name] != "" && !slices.Contains(inside(b), own[name]) {
			t.Errorf("taking the %s namespace away goes unnoticed", name)
		}
	}
}

func TestHostname(t *testing.T) {
	host, err := os.Hostname()
	must(t, err)
	box{}.with(sharedUTS...).expect(t, "without the wall", map[string]string{"hostname": host})
}

func TestHostProcesses(t *testing.T) {
	box{}.expect(t, "behind all walls", map[string]string{"processes": ""})
	box{}.with(shown).expect(t, "with a /proc that hides nothing", map[string]string{"processes": "1"})
	got := box{}.with(sharedPIDs...).attack(t, "processes")["processes"]
	if !slices.Contains(strings.Fields(got), itoa(os.Getpid())) {
		t.Errorf("without the wall we are not seen: %s", got)
	}
}

// TestNetwork: a TCP port and an abstract socket of the host, and what there is
// inside.
func TestNetwork(t *testing.T) {
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	defer tcp.Close()
	name := "capsule-walls-" + itoa(os.Getpid())
	abstract, err := net.Listen("unix", "@"+name)
	must(t, err)
	defer abstract.Close()
	_, port, err := net.SplitHostPort(tcp.Addr().String())
	must(t, err)
	toTCP, toAbstract := "tcp:"+port, "abstract:"+name
	got := box{}.attack(t, toTCP, toAbstract, "loopback")
	// Some kernels have tunnel devices in every network namespace; they are down.
	for _, dev := range strings.Fields(strings.TrimSuffix(got["loopback"], " up=true")) {
		if !slices.Contains([]string{"lo", "sit0", "tunl0", "ip6tnl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "ip6gre0", "teql0"}, dev) {
			t.Errorf("there is a network device %s", dev)
		}
	}
	if !strings.HasSuffix(got["loopback"], "up=true") || got[toTCP] != "ECONNREFUSED" || got[toAbstract] != "ECONNREFUSED" {
		t.Errorf("behind all walls: %v", got)
	}
	box{}.with(sharedNetwork, withoutLandlock).expect(t, "without the wall", map[string]string{toTCP: "ok", toAbstract: "ok"})
	down := box{}.with(dropping(func(s *plan.Step) bool { return s.Path == "lo" })).attack(t, "loopback", toTCP)
	if !strings.HasSuffix(down["loopback"], "up=false") || down[toTCP] != "ENETUNREACH" {
		t.Errorf("without loopback: %v", down)
	}
}

// TestTwoSandboxes: one makes what it can, the other looks for it.
func TestTwoSandboxes(t *testing.T) {
	key := itoa(0x57a11000 + os.Getpid()&0xfff)
	name := "walls-" + itoa(os.Getpid())
	makes := []string{"abstract:!" + name, "sysv:!" + key, "mqueue:!" + name, "create:/dev/shm/" + name, "create:/tmp/" + name, "wait"}
	finds := map[string]string{"abstract:" + name: "ECONNREFUSED", "sysv:" + key: "ENOENT", "mqueue:" + name: "ENOENT",
		"exists:/dev/shm/" + name: "ENOENT", "exists:/tmp/" + name: "ENOENT", "processes": ""}
	pair(t, box{}, makes, func() { box{}.expect(t, "behind all walls", finds) })
	finds["abstract:"+name], finds["sysv:"+key], finds["mqueue:"+name] = "ok", "ok", "ok"
	shared := box{}.with(sharedIPC...).with(sharedNetwork, withoutLandlock)
	defer forget(t, key, name)
	pair(t, shared, makes, func() { shared.expect(t, "with ipc and network of the host", finds) })
}

// pair runs look while another sandbox has made things and waits.
func pair(t *testing.T, b box, makes []string, look func()) {
	t.Helper()
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	b.stdin = r
	other, err := b.start(t, b.compile(t, makes...))
	must(t, err)
	lines := bufio.NewScanner(other.out)
	for lines.Scan() && lines.Text() != "ready" {
		if !strings.HasSuffix(lines.Text(), " ok") {
			t.Errorf("the other sandbox: %s", lines.Text())
		}
	}
	look()
	must(t, w.Close())
	other.finish(t)
}

// forget removes what the sandboxes of the host's ipc namespace left there.
func forget(t *testing.T, key, name string) {
	n := 0
	for _, c := range key {
		n = n*10 + int(c-'0')
	}
	id, err := unix.SysvShmGet(n, 0, 0)
	must(t, err)
	_, err = unix.SysvShmCtl(id, unix.IPC_RMID, nil)
	must(t, err)
	p, err := unix.BytePtrFromString(name)
	must(t, err)
	if _, _, errno := unix.Syscall(unix.SYS_MQ_UNLINK, uintptr(unsafe.Pointer(p)), 0, 0); errno != 0 {
		t.Errorf("mq_unlink: %v", errno)
	}
}
