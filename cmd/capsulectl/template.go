package main

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"text/template"

	"github.com/capsule-run/capsule/spec/fault"
)

// templatePrefix begins an output format that is a template.
const templatePrefix = "template="

// parseTemplate reads what follows template= in --output: a template of
// text/template over the JSON document, whose keys are the names.
func parseTemplate(text string) (*template.Template, error) {
	t, err := template.New("output").Option("missingkey=error").Funcs(template.FuncMap{"json": templateJSON}).Parse(text)
	if err != nil {
		return nil, fault.New(fault.InvalidValue, "", strings.TrimPrefix(err.Error(), "template: ")).
			WithHint("Write a Go template over the JSON document, such as template='{{.execution_id}} {{.status}}'; see -o json for the names.")
	}
	return t, nil
}

// templateJSON is a value of the document as JSON, for what is no single word.
func templateJSON(v any) (string, error) {
	data, err := json.Marshal(v)
	return string(data), err
}

// fill applies a template to a document; to each element of one that is an array,
// a line each. A key that is not there is E1001.
func fill(t *template.Template, document []byte) ([]byte, error) {
	var value any
	d := json.NewDecoder(bytes.NewReader(document))
	d.UseNumber() // numbers are shown as they are written
	if err := d.Decode(&value); err != nil {
		return nil, fault.Wrap(fault.IO, "read the document for the template", err)
	}
	all, ok := value.([]any)
	if !ok {
		all = []any{value}
	}
	var out bytes.Buffer
	for _, element := range all {
		if err := t.Execute(&out, element); err != nil {
			return nil, fault.New(fault.InvalidValue, "flag --output", strings.TrimPrefix(err.Error(), "template: ")).
				WithHint("-o json shows the names that there are.")
		}
		out.WriteByte('\n')
	}
	return out.Bytes(), nil
}

// show writes a document, or what the template makes of it.
func (i *invocation) show(w io.Writer, document []byte) error {
	if i.template != nil {
		text, err := fill(i.template, document)
		if err != nil {
			return err
		}
		document = text
	} else if len(document) == 0 || document[len(document)-1] != '\n' {
		document = append(document, '\n')
	}
	_, err := w.Write(document)
	return err
}
