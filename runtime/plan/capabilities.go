package plan

import (
	"encoding/binary"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// capabilityNames are those of capabilities(7), by number.
const capabilityNames = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE " +
	"NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE " +
	"SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL " +
	"SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"

// capabilities are the five sets of the command, a bit for each. They count in
// the sandbox's own user namespace alone.
type capabilities struct {
	bounding, effective, inheritable, permitted, ambient uint64
}

func (c capabilities) any() bool {
	return c.bounding|c.effective|c.inheritable|c.permitted|c.ambient != 0
}

// capabilitiesOf reads process.capabilities. The second result is the field and
// the name that no kernel has; empty: all are known. An absent object is five
// empty sets.
func capabilitiesOf(p *specs.Process) (c capabilities, unknownField, unknown string) {
	if p.Capabilities == nil {
		return c, "", ""
	}
	o := p.Capabilities
	for _, set := range []struct {
		name string
		from []string
		to   *uint64
	}{{"bounding", o.Bounding, &c.bounding}, {"effective", o.Effective, &c.effective}, {"inheritable", o.Inheritable, &c.inheritable},
		{"permitted", o.Permitted, &c.permitted}, {"ambient", o.Ambient, &c.ambient}} {
		for i, name := range set.from {
			n := capability(name)
			if n < 0 {
				return c, "process.capabilities." + set.name + "[" + strconv.Itoa(i) + "]", name
			}
			*set.to |= 1 << n
		}
	}
	return c, "", ""
}

// capability is the number of a name with CAP_; -1: no kernel has it.
func capability(name string) int {
	name, ok := strings.CutPrefix(name, "CAP_")
	n := 0
	for known := range strings.FieldsSeq(capabilityNames) {
		if ok && known == name {
			return n
		}
		n++
	}
	return -1
}

// take gives the command the capabilities of the configuration, as the last thing
// that needs any. An ambient capability that is not also permitted and inheritable
// the kernel would refuse (capabilities(7)), so it is left out.
func (c *compiler) take(caps capabilities) {
	c.field = "process.capabilities"
	c.do(OpPrctl, "", flag(prCapAmbient, "PR_CAP_AMBIENT"), flag(prCapAmbientClear, "CLEAR_ALL"), imm(0), imm(0), imm(0))
	header := []byte{0x22, 0x05, 0x08, 0x20, 0, 0, 0, 0} // _LINUX_CAPABILITY_VERSION_3, this process
	data := make([]byte, 0, 24)
	for _, shift := range []uint{0, 32} {
		for _, set := range []uint64{caps.effective, caps.permitted, caps.inheritable} {
			data = binary.LittleEndian.AppendUint32(data, uint32(set>>shift))
		}
	}
	c.do(OpCapset, "", raw(header, "v3"), raw(data, "effective "+hex(caps.effective)+", permitted "+hex(caps.permitted)+", inheritable "+hex(caps.inheritable)))
	for i, name := range strings.Fields(capabilityNames) {
		if caps.ambient&caps.permitted&caps.inheritable&(1<<i) != 0 {
			c.do(OpPrctl, "", flag(prCapAmbient, "PR_CAP_AMBIENT"), flag(prCapAmbientRaise, "RAISE"), flag(int64(i), "CAP_"+name), imm(0), imm(0))
		}
	}
}

// noNewPrivs forbids execve to give privileges.
func (c *compiler) noNewPrivs() {
	c.field = "process.noNewPrivileges"
	c.do(OpPrctl, "", flag(prSetNoNewPrivs, "PR_SET_NO_NEW_PRIVS"), imm(1), imm(0), imm(0), imm(0))
}

func hex(n uint64) string { return "0x" + strconv.FormatUint(n, 16) }
