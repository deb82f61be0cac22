package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

func modeFile(i *invocation, v string) error {
	if v == "" {
		return fault.New(fault.InvalidPath, "", "the path is empty").WithHint("An unset shell variable? Write - for stdin.")
	}
	i.file = v
	return nil
}

// order takes the request of stdin with --json, of a file with --file, else of the flags.
func (c *console) order(inv *invocation) (*order, error) {
	if !inv.documented() {
		if err := c.script(inv); err != nil {
			return nil, err
		}
		req, err := build(inv, c.lookupEnv)
		return &order{request: req, id: inv.id}, err
	}
	data, err := c.requestDocument(inv.file)
	if err != nil {
		return nil, err
	}
	req, err := decode(data, inv)
	if inv.file != "" && inv.file != "-" {
		err = inFile(err, inv.file)
	}
	if err == nil && inv.stdin && req.Stdin != nil {
		err = fault.New(fault.InvalidValue, "", "--stdin cannot be combined with a request that has stdin").WithField("/stdin").
			WithHint("Leave one of them out.")
	}
	o := &order{request: req, id: inv.id}
	if inv.rules == nil {
		// A daemon fills in from its own configuration where there is none here.
		o.document, o.profile = data, inv.profile
	}
	return o, err
}

// inFile names the file to a fault of its syntax, which has no field.
func inFile(err error, path string) error {
	var list fault.List
	if errors.As(err, &list) && len(list) == 1 && list[0].Code == fault.JSONSyntax {
		return fault.List{list[0].WithPath(path)}
	}
	return err
}

// requestDocument is the request as JSON: of a file, or of stdin without one.
func (c *console) requestDocument(file string) ([]byte, error) {
	if file == "" || file == "-" {
		c.terminalNote("an ExecutionRequest")
		return readRequest(c.stdin, spec.MaxDocumentBytes)
	}
	data, err := readUpTo(file, spec.MaxDocumentBytes)
	if err != nil || !strings.EqualFold(filepath.Ext(file), ".toml") {
		return data, err
	}
	return jsonOfTOML(file, data)
}

// terminalNote says what a terminal is read for. It is only a courtesy.
func (c *console) terminalNote(what string) {
	if f, ok := c.stdin.(*os.File); ok && isTerminal(f) {
		_, _ = io.WriteString(c.stderr, "capsule: reading "+what+" from the terminal; end it with Ctrl-D\n")
	}
}

// jsonOfTOML gives the same document as JSON, which spec then judges.
func jsonOfTOML(path string, data []byte) ([]byte, error) {
	tree := map[string]any{}
	err := toml.Unmarshal(data, &tree)
	var at *toml.DecodeError
	switch {
	case errors.As(err, &at):
		row, column := at.Position()
		message := "line " + strconv.Itoa(row) + ", column " + strconv.Itoa(column) + ": " + strings.TrimPrefix(at.Error(), "toml: ")
		return nil, fault.New(fault.JSONSyntax, "read the request", message).WithPath(path).WithHint("The file is read as TOML because of its name.")
	case err != nil:
		return nil, fault.Wrap(fault.JSONSyntax, "read the request", err).WithPath(path)
	}
	document, err := json.Marshal(tree)
	if err != nil { // a number that is infinite or none
		return nil, fault.Wrap(fault.InvalidValue, "read the request", err).WithPath(path)
	}
	return document, nil
}
