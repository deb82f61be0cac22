package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"os/user"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/capsule-run/capsule/shim/doctor"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor"
)

const doctorHelp = `Find out what this host can do and what stands in the way. Sandboxes are set up
with the code that sets up every other; for each wall and limit it says whether
it works, is degraded (executions run without it, and one that asks for it is refused)
or is blocked (nothing runs), by which setting, and with which commands to mend it.
Nothing is left behind and nothing is changed.

Usage:
  capsulectl doctor [--path DIR]... [--user NAME] [-o FORMAT] [-q]
  capsulectl doctor --apparmor-profile

Flags:
  --path DIR           try DIR as a writable path (repeatable; default a temporary directory)
  --user NAME          as root: examine for this user too (default: the one who called sudo)
  --apparmor-profile   print the AppArmor profile for capsule-shim and examine nothing
  -o, --output FORMAT  human (or table), json, or template=TEXT, a Go template over the JSON
  -q, --quiet          print nothing: the exit status tells
  -h, --help           print this text

Examples:
  capsulectl doctor
  sudo capsulectl doctor            # for root, and for the user who calls it
  capsulectl doctor --path "$PWD"   # can this directory be given to a sandbox?
  capsulectl doctor -o json | jq '.users[].checks[] | select(.state != "works")'
  capsulectl doctor -o template='{{.state}} on Linux {{.kernel}}'
  capsulectl doctor --apparmor-profile | sudo tee /etc/apparmor.d/capsule-shim

Exit status:
  0 everything works   1 something is degraded   2 something is blocked
  125 the examination itself failed
`

// doctorCommand examines the host.
func (c *console) doctorCommand(code *int) *cli.Command {
	return &cli.Command{
		Name: "doctor", Usage: "find out what this host can do, and mend it", HideHelpCommand: true,
		CustomHelpTemplate: literal(doctorHelp), OnUsageError: usageError,
		Flags: []cli.Flag{outputFlag(), quietFlag(), &cli.StringSliceFlag{Name: "path"}, &cli.StringFlag{Name: "user"}, &cli.BoolFlag{Name: "apparmor-profile"}},
		Action: func(ctx *cli.Context) error {
			if err := noArguments(ctx); err != nil {
				return err
			}
			f, err := formatOf(ctx)
			if err != nil {
				return err
			}
			shim, err := findShim()
			if err != nil {
				return err
			}
			if ctx.Bool("apparmor-profile") {
				*code = c.print(doctor.AppArmorProfile(shim))
				return nil
			}
			*code, err = c.doctor(shim, ctx.StringSlice("path"), ctx.String("user"), &f)
			return err
		},
	}
}

// findShim is the capsule-shim that executions use, without symbolic links:
// AppArmor knows programs by that path.
func findShim() (string, error) {
	path, err := supervisor.FindShim()
	if err != nil {
		return "", err
	}
	if real, err := os.Readlink(path); err == nil && real != "" && real[0] == '/' {
		path = real
	}
	return path, nil
}

func (c *console) doctor(shim string, paths []string, other string, f *format) (int, error) {
	for i := range paths {
		path, err := hostPath(paths[i])
		if err != nil {
			return 0, err
		}
		paths[i] = path
	}
	patients, err := c.patients(other)
	if err != nil {
		return 0, err
	}
	r := doctor.Report{State: doctor.Works, Kernel: kernelRelease(), Shim: shim}
	for _, p := range patients {
		done := c.progress("examining for " + p.name)
		x, err := c.examine(shim, p, paths)
		done()
		if err != nil {
			return 0, err
		}
		r.State = doctor.Worse(r.State, x.State)
		r.Users = append(r.Users, *x)
	}
	if status, err := c.present(f, r, doctorText(&r)); err != nil || status != 0 {
		return status, err
	}
	return doctor.ExitStatus(r.State), nil
}

// patient is a user to examine for.
type patient struct {
	name string
	// other is false for the user of this process, who has no more than a name here.
	other    bool
	uid, gid uint32
	home     string
}

// patients are the user of this process and, for root, another one.
func (c *console) patients(other string) ([]patient, error) {
	uid := os.Geteuid()
	self := patient{name: strconv.Itoa(uid)}
	if u, err := user.LookupId(self.name); err == nil {
		self.name = u.Username
	}
	if other == "" && uid == 0 {
		other = c.environment("SUDO_UID")
	}
	if other == "" || other == "0" {
		return []patient{self}, nil
	}
	if uid != 0 {
		return nil, fault.New(fault.NotAuthorised, "capsulectl doctor", "only root examines for another user").WithHint("Call it with sudo, or as that user.")
	}
	u, err := user.Lookup(other)
	if err != nil {
		if u, err = user.LookupId(other); err != nil {
			return nil, fault.New(fault.InvalidValue, "flag --user", "no user is called "+strconv.Quote(other)).
				WithHint("Give the name or the number of a user of this host.")
		}
	}
	id, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return nil, fault.Wrap(fault.InvalidValue, "flag --user", err)
	}
	return []patient{self, {u.Username, true, uint32(id), uint32(gid), u.HomeDir}}, nil
}

// examine runs capsule-shim as the patient.
func (c *console) examine(shim string, p patient, paths []string) (*doctor.Examination, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, fault.Wrap(fault.IO, "open /dev/null", err)
	}
	defer null.Close()
	var out, errs bytes.Buffer
	cmd := exec.Command(shim, append([]string{"doctor", p.name}, paths...)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.ExtraFiles = []*os.File{null, null} // a shim's own descriptors go there
	cmd.SysProcAttr = p.attributes()
	if p.other {
		cmd.Dir = "/"
		cmd.Env = []string{"HOME=" + p.home, "USER=" + p.name, "PATH=/usr/local/bin:/usr/bin:/bin"}
		run := "/run/user/" + strconv.Itoa(int(p.uid))
		if _, err := os.Stat(run); err == nil {
			cmd.Env = append(cmd.Env, "XDG_RUNTIME_DIR="+run)
		}
	}
	err = cmd.Run()
	x := new(doctor.Examination)
	if err == nil {
		err = json.Unmarshal(out.Bytes(), x)
	}
	if err == nil {
		return x, nil
	}
	if errors.Is(err, os.ErrPermission) && p.other {
		return unreachable(shim, p, err), nil
	}
	f := fault.Wrap(fault.Unreachable, "examine for "+p.name, err).WithPath(shim)
	if errs.Len() > 0 {
		f.Err = errors.New(string(bytes.TrimSpace(errs.Bytes())))
		f.Hint = "capsule-shim says this itself; temporary directories are made where TMPDIR says, else in /tmp."
	}
	return nil, f
}

// unreachable is the examination for a user who may not execute the shim.
func unreachable(shim string, p patient, err error) *doctor.Examination {
	x := &doctor.Examination{User: p.name, UID: int(p.uid), Rootless: true, Checks: []doctor.Check{{
		Kind: doctor.KindStep, Name: "capsule-shim", State: doctor.Blocked, Code: string(fault.Unreachable), Cause: "shim_unreachable",
		By: "the modes of " + shim + " and the directories above it", Detail: err.Error(),
		Fix: doctor.Lookup("shim_unreachable").Commands(doctor.Place{Shim: shim})}}}
	x.Judge()
	return x
}
