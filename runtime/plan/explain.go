package plan

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Explain writes the plan for a person: one line per step, the OCI field that
// it comes from at the end.
func (p *Plan) Explain(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "clone into: %s\n", cloneNames(p.Clone))
	for _, m := range p.UIDMap {
		fmt.Fprintf(&b, "uid map: %d..%d inside is %d.. outside\n", m.Inside, m.Inside+m.Size-1, m.Outside)
	}
	for _, m := range p.GIDMap {
		fmt.Fprintf(&b, "gid map: %d..%d inside is %d.. outside\n", m.Inside, m.Inside+m.Size-1, m.Outside)
	}
	if len(p.Sources) > 0 {
		b.WriteString("\nbefore the clone, by the launcher (host paths, no symlink followed):\n")
	}
	for _, s := range p.Sources {
		attrs := attrNote(s.Set)
		if s.Recursive {
			attrs += ",recursive"
		}
		for _, m := range s.UIDMap {
			attrs += fmt.Sprintf(",idmap %d->%d+%d", m.Inside, m.Outside, m.Size)
		}
		line(&b, -1, fmt.Sprintf("%s = open_tree(%s, CLONE); mount_setattr(%s)", regName(s.Reg), strconv.Quote(s.Path), attrs), s.Field)
	}
	section := func(title string, steps []Step) {
		if len(steps) == 0 {
			return
		}
		fmt.Fprintf(&b, "\n%s:\n", title)
		for i, s := range steps {
			line(&b, i, s.String(), s.Field)
		}
	}
	section("before, by a process in the pid namespace of the launcher", p.Before)
	section("set-up, by the first process of the sandbox", p.Setup)
	section("payload, by the process that becomes the command", p.Payload)
	section("command, by the same process", p.Command)
	section("init, by process 1 once the command runs", p.Init)
	_, err := io.WriteString(w, b.String())
	return err
}

func line(b *strings.Builder, i int, text, field string) {
	n := "   "
	if i >= 0 {
		n = fmt.Sprintf("%3d", i)
	}
	if field == "" {
		fmt.Fprintf(b, "%s  %s\n", n, text)
		return
	}
	fmt.Fprintf(b, "%s  %-96s # %s\n", n, text, field)
}

func cloneNames(f uint64) string {
	var names []string
	for _, n := range []struct {
		flag uint64
		name string
	}{{CloneNewUser, "user"}, {CloneNewNS, "mount"}, {CloneNewPID, "pid"}, {CloneNewIPC, "ipc"}, {CloneNewUTS, "uts"}, {CloneNewNet, "network"}, {CloneNewTime, "time"}, {CloneNewCgroup, "cgroup"}} {
		if f&n.flag != 0 {
			names = append(names, n.name)
		}
	}
	return strings.Join(names, ", ")
}

var regNames = map[Reg]string{RegSync: "sync", RegStdin: "stdin", RegStdout: "stdout", RegStderr: "stderr", RegRoot: "root",
	RegTarget: "target", RegTree: "tree", RegFS: "fs", RegFile: "file",
	RegBelow: "low-1", RegBetweenFirst: "low+1", RegBetweenLast: "high-1", RegAbove: "high+1", RegListener: "listener", RegRuleset: "ruleset",
	RegGate: "gate", RegMaster: "terminal", RegSlave: "slave", RegMountNS: "mntns", RegUserNS: "userns", RegTimeNS: "timens", RegCgroupNS: "cgroupns",
	RegNetNS: "netns", RegIPCNS: "ipcns", RegUTSNS: "utsns", RegPIDNS: "pidns", RegProcFS: "procfs"}

func regName(r Reg) string {
	if n, ok := regNames[r]; ok {
		return n
	}
	if r >= RegSource0 {
		return "source" + strconv.Itoa(int(r-RegSource0))
	}
	if r < RegTasks0 {
		return "beneath"
	}
	return "tasks" + strconv.Itoa(int(r-RegTasks0))
}

// String is the step as a line of C-like text.
func (s Step) String() string {
	args := make([]string, len(s.Args))
	for i, a := range s.Args {
		args[i] = a.String()
	}
	text := s.Op.String() + "(" + strings.Join(args, ", ") + ")"
	if s.Result != RegNone {
		text = regName(s.Result) + " = " + text
	}
	switch {
	case s.Skip > 0 && s.Mode == Prefer:
		text += " or the next " + strconv.Itoa(int(s.Skip))
	case s.Skip > 0 && s.Mode == Probe:
		text += " or not the next " + strconv.Itoa(int(s.Skip))
	}
	return text
}

// String is the argument as a person reads it.
func (a Arg) String() string {
	if a.Note != "" {
		return a.Note
	}
	switch a.Kind {
	case ArgReg:
		return regName(Reg(a.N))
	case ArgString:
		return quote(a.S)
	case ArgBytes, ArgProgram:
		return strconv.Itoa(len(a.S)) + " bytes"
	case ArgVector:
		if len(a.Vec) > 8 {
			return fmt.Sprintf("[%d strings]", len(a.Vec))
		}
		parts := make([]string, len(a.Vec))
		for i, v := range a.Vec {
			parts[i] = quote(v)
		}
		return "[" + strings.Join(parts, " ") + "]"
	case ArgImm:
		if a.N == atFDCWD {
			return "AT_FDCWD"
		}
	}
	return strconv.FormatInt(a.N, 10)
}

func quote(s string) string {
	if len(s) > 200 {
		s = s[:200] + "..."
	}
	return strconv.Quote(s)
}
