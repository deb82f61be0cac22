package main

import (
	"strconv"
	"strings"
	"text/template"

	"github.com/urfave/cli/v2"

	"github.com/capsule-run/capsule/spec/fault"
)

// format is what --output and --quiet ask of the document of a verb.
type format struct {
	// json: the document, or what template makes of it; else text for people.
	json bool
	// template, when not nil, is applied to the document.
	template *template.Template
	// quiet: nothing is printed, and the exit status tells.
	quiet bool
}

// The usages of the flags that a format is made of.
const (
	outputUsage = "human (or table; the default), json, or template=TEXT, a Go template over the JSON"
	quietUsage  = "print nothing: the exit status tells"
)

// parseFormat reads the argument of --output.
func parseFormat(v string) (f format, err error) {
	text, isTemplate := strings.CutPrefix(v, templatePrefix)
	switch {
	case isTemplate:
		f.template, err = parseTemplate(text)
		f.json = err == nil
	case v == "json":
		f.json = true
	case v != "human" && v != "table":
		err = fault.New(fault.InvalidValue, "", strconv.Quote(v)+" is neither human nor table, json or template=TEXT")
	}
	return f, err
}

// text is what the format makes of a document, of which human is the form for people.
func (f *format) text(document any, human string) (string, error) {
	if f.quiet {
		return "", nil
	}
	if !f.json {
		return human, nil
	}
	text, err := indented(document)
	if err != nil || f.template == nil {
		return text, err
	}
	filled, err := fill(f.template, []byte(text))
	return string(filled), err
}

// present prints what the format makes of a document. It returns the exit status
// of that, which is 0 unless stdout cannot be written.
func (c *console) present(f *format, document any, human string) (int, error) {
	text, err := f.text(document, human)
	if err != nil || f.quiet {
		return 0, err
	}
	if text == "" && f.template != nil { // a list of nothing has no lines
		return 0, nil
	}
	return c.print(text), nil
}

func outputFlag() cli.Flag {
	return &cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "human", Usage: outputUsage}
}

func quietFlag() cli.Flag {
	return &cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: quietUsage}
}

// formatOf reads the flags of a verb whose flags cli parses.
func formatOf(ctx *cli.Context) (format, error) {
	f, err := parseFormat(ctx.String("output"))
	if err != nil {
		return f, (&option{name: "output"}).wrap(err)
	}
	f.quiet = ctx.Bool("quiet")
	return f, nil
}
