package resources

import (
	"encoding/binary"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/spec/fault"
)

// rules are the device rules of a container, in their order: nothing is allowed at
// first, and after the configuration's rules what every container may do.
func rules(asked []specs.LinuxDeviceCgroup) []specs.LinuxDeviceCgroup {
	number := func(n int64) *int64 { return &n }
	all := append([]specs.LinuxDeviceCgroup{{Type: "a", Access: "rwm"}}, asked...)
	allow := func(kind string, major, minor *int64, access string) {
		all = append(all, specs.LinuxDeviceCgroup{Allow: true, Type: kind, Major: major, Minor: minor, Access: access})
	}
	// A node can be made of every device, and be opened of none but these.
	allow("c", nil, nil, "m")
	allow("b", nil, nil, "m")
	for _, d := range [][2]int64{{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}, {5, 2}} { // null, zero, full, random, urandom, tty, ptmx
		allow("c", number(d[0]), number(d[1]), "rwm")
	}
	allow("c", number(136), nil, "rwm") // pts
	return all
}

func checkRules(asked []specs.LinuxDeviceCgroup) error {
	var all fault.List
	for i, d := range asked {
		field := "linux.resources.devices[" + strconv.Itoa(i) + "]"
		refuse := func(bad bool, name, why string) {
			if bad {
				all = append(all, fault.New(fault.InvalidBundle, "device rules", why).WithField(field+"."+name))
			}
		}
		refuse(!strings.Contains("a c b", typeOf(d)) || len(typeOf(d)) != 1, "type", "is none of a, b and c")
		refuse(strings.Trim(d.Access, "rwm") != "", "access", "has other letters than r, w and m")
		for name, n := range map[string]*int64{"major": d.Major, "minor": d.Minor} {
			refuse(n != nil && (*n < -1 || *n > 1<<31), name, "is out of range")
		}
	}
	return all.Err()
}

func typeOf(d specs.LinuxDeviceCgroup) string {
	if d.Type == "" {
		return "a"
	}
	return d.Type
}

func accessOf(d specs.LinuxDeviceCgroup) string {
	if d.Access == "" {
		return "rwm"
	}
	return d.Access
}

// everything tells whether a rule is about all devices.
func everything(d specs.LinuxDeviceCgroup) bool {
	return typeOf(d) == "a" && wild(d.Major) && wild(d.Minor)
}

func wild(n *int64) bool { return n == nil || *n < 0 }

// lines are a rule as devices.allow and devices.deny of v1 take it, one line a write. The
// kernel takes whatever begins with an a for all uses of all devices, so a rule that allows
// less of both kinds is one for each. One that denies a use of everything denies all:
// v1 would keep what was allowed by number before.
func lines(d specs.LinuxDeviceCgroup) []string {
	whole := !strings.ContainsFunc("rwm", func(use rune) bool { return !strings.ContainsRune(accessOf(d), use) })
	if everything(d) && (whole || !d.Allow) {
		return []string{"a"}
	}
	part := func(n *int64) string {
		if wild(n) {
			return "*"
		}
		return signed(*n)
	}
	kinds := []string{typeOf(d)}
	if kinds[0] == "a" {
		kinds = []string{"b", "c"}
	}
	var all []string
	for _, kind := range kinds {
		all = append(all, kind+" "+part(d.Major)+":"+part(d.Minor)+" "+accessOf(d))
	}
	return all
}

// Instructions of eBPF that the filter is made of: include/uapi/linux/bpf.h.
const (
	loadWord   = 0x61 // BPF_LDX|BPF_MEM|BPF_W
	and32      = 0x54 // BPF_ALU|BPF_AND|BPF_K
	shift32    = 0x74 // BPF_ALU|BPF_RSH|BPF_K
	copy32     = 0xbc // BPF_ALU|BPF_MOV|BPF_X
	jumpNot    = 0x55 // BPF_JMP|BPF_JNE|BPF_K
	jumpNot32  = 0x56 // BPF_JMP32|BPF_JNE|BPF_K
	jumpEqual  = 0x15 // BPF_JMP|BPF_JEQ|BPF_K
	set        = 0xb7 // BPF_ALU64|BPF_MOV|BPF_K
	leave      = 0x95 // BPF_JMP|BPF_EXIT
	typeBlock  = 1    // BPF_DEVCG_DEV_BLOCK
	typeChar   = 2    // BPF_DEVCG_DEV_CHAR
	accessMake = 1    // BPF_DEVCG_ACC_MKNOD
	accessRead = 2    // BPF_DEVCG_ACC_READ
	accessPut  = 4    // BPF_DEVCG_ACC_WRITE
)

// filter is the program of a v2 control group that judges every use of a device: the
// last rule that is about it decides. Its context is struct bpf_cgroup_dev_ctx.
func filter(all []specs.LinuxDeviceCgroup) []byte {
	var code []byte
	emit := func(op byte, dst, src byte, offset int16, value int32) {
		code = append(code, op, dst|src<<4)
		code = binary.LittleEndian.AppendUint16(code, uint16(offset))
		code = binary.LittleEndian.AppendUint32(code, uint32(value))
	}
	// 2: type, 3: access, 4: major, 5: minor
	emit(loadWord, 2, 1, 0, 0)
	emit(copy32, 3, 2, 0, 0)
	emit(and32, 2, 0, 0, 0xffff)
	emit(shift32, 3, 0, 0, 16)
	emit(loadWord, 4, 1, 4, 0)
	emit(loadWord, 5, 1, 8, 0)
	for i := len(all) - 1; i >= 0; i-- {
		d := all[i]
		type test struct {
			register byte
			value    int32
		}
		var tests []test
		switch typeOf(d) {
		case "b":
			tests = append(tests, test{2, typeBlock})
		case "c":
			tests = append(tests, test{2, typeChar})
		}
		if !wild(d.Major) {
			tests = append(tests, test{4, int32(*d.Major)})
		}
		if !wild(d.Minor) {
			tests = append(tests, test{5, int32(*d.Minor)})
		}
		var mask int32
		for _, letter := range accessOf(d) {
			mask |= map[rune]int32{'m': accessMake, 'r': accessRead, 'w': accessPut}[letter]
		}
		partial := mask != accessMake|accessRead|accessPut
		left := int16(len(tests) + 2)
		if partial {
			left += 3
		}
		for _, t := range tests {
			left--
			emit(jumpNot32, t.register, 0, left, t.value)
		}
		if partial {
			// An allowing rule is about a use that it allows as a whole, a denying one
			// about a use of which it denies a part.
			emit(copy32, 1, 3, 0, 0)
			if d.Allow {
				emit(and32, 1, 0, 0, ^mask)
				emit(jumpNot, 1, 0, 2, 0)
			} else {
				emit(and32, 1, 0, 0, mask)
				emit(jumpEqual, 1, 0, 2, 0)
			}
		}
		verdict := int32(0)
		if d.Allow {
			verdict = 1
		}
		emit(set, 0, 0, 0, verdict)
		emit(leave, 0, 0, 0, 0)
		if len(tests) == 0 && !partial {
			return code // it is about everything: the kernel refuses what cannot be reached
		}
	}
	emit(set, 0, 0, 0, 0)
	emit(leave, 0, 0, 0, 0)
	return code
}
