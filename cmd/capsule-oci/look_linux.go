package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/runtime/container"
	"github.com/capsule-run/capsule/spec/fault"
)

func format(text string, may ...string) error {
	if !slices.Contains(may, text) {
		return fault.New(fault.InvalidValue, "read flags", "is none of "+strings.Join(may, ", ")).WithField("format")
	}
	return nil
}

func (p *program) ps(args []string) error {
	f := flags("ps")
	var form string
	both(f.StringVar, &form, "format", "f", "table", "table or json")
	rest, err := parse(f, args, 1, -1)
	if err == nil {
		err = format(form, "table", "json")
	}
	if err != nil {
		return err
	}
	pids, err := p.rt.Processes(rest[0])
	if err != nil {
		return err
	}
	if form == "json" {
		if pids == nil {
			pids = []int{}
		}
		return json.NewEncoder(os.Stdout).Encode(pids)
	}
	options := rest[1:]
	if len(options) == 0 {
		options = []string{"-ef"}
	}
	out, err := exec.Command("ps", options...).Output()
	if err != nil {
		return fault.Wrap(fault.IO, "ps", err)
	}
	lines := strings.Split(strings.TrimRight(string(out), "\n"), "\n")
	column := slices.Index(strings.Fields(lines[0]), "PID")
	if column < 0 {
		return fault.New(fault.InvalidValue, "ps", "the options show no column PID")
	}
	fmt.Println(lines[0])
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if len(fields) <= column {
			continue
		}
		if pid, err := strconv.Atoi(fields[column]); err == nil && slices.Contains(pids, pid) {
			fmt.Println(line)
		}
	}
	return nil
}

// listed is a container in the form that runc's callers know.
type listed struct {
	Version string               `json:"ociVersion"`
	ID      string               `json:"id"`
	Pid     int                  `json:"pid"`
	Status  specs.ContainerState `json:"status"`
	Bundle  string               `json:"bundle"`
	Rootfs  string               `json:"rootfs"`
	Created time.Time            `json:"created"`
}

func (p *program) list(args []string) error {
	f := flags("list")
	var form string
	var quiet bool
	both(f.StringVar, &form, "format", "f", "table", "table or json")
	both(f.BoolVar, &quiet, "quiet", "q", false, "ids alone")
	_, err := parse(f, args, 0, 0)
	if err == nil {
		err = format(form, "table", "json")
	}
	if err != nil {
		return err
	}
	ids, err := p.rt.IDs()
	if err != nil {
		return err
	}
	all := []listed{}
	for _, id := range ids {
		if quiet {
			fmt.Println(id)
			continue
		}
		c, err := p.rt.Peek(id)
		if err != nil {
			p.rt.Warn(err)
			continue
		}
		st := c.State()
		one := listed{st.Version, id, st.Pid, st.Status, st.Bundle, "", c.Created}
		if c.Config.Root != nil {
			one.Rootfs = c.Config.Root.Path
		}
		all = append(all, one)
	}
	switch {
	case quiet:
		return nil
	case form == "json":
		return json.NewEncoder(os.Stdout).Encode(all)
	}
	w := tabwriter.NewWriter(os.Stdout, 12, 1, 3, ' ', 0)
	fmt.Fprintln(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED")
	for _, c := range all {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", c.ID, c.Pid, c.Status, c.Bundle, c.Created.Format(time.RFC3339))
	}
	return w.Flush()
}

// event is a line of events.
type event struct {
	Type string           `json:"type"`
	ID   string           `json:"id"`
	Data *container.Stats `json:"data,omitempty"`
}

func (p *program) events(args []string) error {
	f := flags("events")
	once := f.Bool("stats", false, "show the usage once")
	interval := f.Duration("interval", 5*time.Second, "time between two lines")
	rest, err := parse(f, args, 1, 1)
	if err != nil {
		return err
	}
	if *interval <= 0 {
		return fault.New(fault.OutOfRange, "events", "is not positive").WithField("interval")
	}
	e := json.NewEncoder(os.Stdout)
	var kills uint64
	for first := true; ; first = false {
		s, err := p.rt.Stats(rest[0])
		if err != nil {
			return err
		}
		if s == nil {
			return nil // it has ended
		}
		if !first && s.OOMKills > kills {
			if err := e.Encode(event{"oom", rest[0], nil}); err != nil {
				return fault.Wrap(fault.IO, "write", err)
			}
		}
		kills = s.OOMKills
		if err := e.Encode(event{"stats", rest[0], s}); err != nil {
			return fault.Wrap(fault.IO, "write", err)
		}
		if *once {
			return nil
		}
		time.Sleep(*interval)
	}
}
