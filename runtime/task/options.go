package task

import (
	"strings"

	"github.com/capsule-run/capsule/runtime/wire"
	"github.com/capsule-run/capsule/spec/fault"
)

// options are those of a Create that matter here.
type options struct {
	uid, gid uint32 // owner of the streams; 0: the process' user
	systemd  bool   // control groups are scopes of systemd
}

// optionsOf reads the options of a runtime, of either kind that containerd sends, and
// refuses by name what is not done.
func optionsOf(encoded wire.Message) (o options, err error) {
	url, value := encoded.String(1), encoded.Message(2)
	if err := value.Check(); err != nil {
		return o, refuse("options", err.Error(), "")
	}
	switch url[strings.LastIndexByte(url, '/')+1:] {
	case "containerd.runc.v1.Options": // api/types/runc/options/oci.proto
		o.uid, o.gid, o.systemd = uint32(value.Uint(4)), uint32(value.Uint(5)), value.Bool(9)
		switch {
		case value.String(3) != "":
			return o, refuse("options.ShimCgroup", "the shim stays in the group of containerd", "Leave it out.")
		case value.String(6) != "":
			return o, refuse("options.BinaryName", "no other program is executed", "Leave it out.")
		case value.String(7) != "":
			return o, refuse("options.Root", "the state is in the bundle", "Leave it out.")
		case value.String(10)+value.String(11) != "":
			return o, refuse("options.CriuImagePath", "there are no checkpoints", "Leave it out.")
		case value.String(12) != "":
			return o, refuse("options.TaskApiAddress", "there is one shim for each pod", "Leave it out.")
		}
	case "containerd.linux.runc.CreateOptions": // runtime/linux/runctypes/runc.proto of 1.6, whose clients send it to any runtime
		o.uid, o.gid = uint32(value.Uint(10)), uint32(value.Uint(11))
		if value.String(9) != "" {
			return o, refuse("options.ShimCgroup", "the shim stays in the group of containerd", "Leave it out.")
		}
	case "runtimeoptions.v1.Options": // api/types/runtimeoptions/v1/api.proto
		if value.String(2) != "" || len(value.Message(3)) > 0 {
			return o, refuse("options.ConfigPath", "there is nothing to configure", "Leave the runtime's options out.")
		}
	case "":
	default:
		return o, refuse("options", url+" is not known", "Leave the runtime's options out.")
	}
	return o, nil
}

func refuse(field, why, hint string) error {
	return fault.New(fault.Unsupported, "create task", why).WithField(field).WithHint(hint)
}
