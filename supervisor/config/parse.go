package config

import (
	"bytes"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/pelletier/go-toml/v2"

	"github.com/capsule-run/capsule/spec/fault"
)

// maxFile bounds a configuration file, in bytes.
const maxFile = 1 << 20

// maxNesting bounds the nesting of JSON; TOML's own parser bounds itself.
const maxNesting = 32

// read parses one file by its extension: .json, anything else is TOML.
func read(path string) (map[string]any, *fault.Fault) {
	wrong := func(err error) *fault.Fault {
		return fault.Wrap(fault.ConfigFile, "read configuration", err).WithPath(path)
	}
	f, err := os.Open(path)
	if err != nil {
		var cause *os.PathError
		if errors.As(err, &cause) {
			err = cause.Err
		}
		return nil, wrong(err).WithHint("Give --config or CAPSULE_CONFIG a file that this user can read.")
	}
	defer f.Close() // opened for reading
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, wrong(err)
	case len(data) > maxFile:
		return nil, wrong(errors.New("is longer than 1 MiB"))
	}
	tree, err := parse(path, bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")))
	if err != nil {
		return nil, wrong(err).WithHint("Run `capsulectl config check`; `capsulectl config default` prints the form.")
	}
	return tree, nil
}

// parse gives the document as maps, []any, string, bool, int64 and float64.
func parse(path string, data []byte) (map[string]any, error) {
	if strings.EqualFold(filepath.Ext(path), ".json") {
		return parseJSON(data)
	}
	tree := map[string]any{}
	if err := toml.Unmarshal(data, &tree); err != nil {
		var at *toml.DecodeError
		if errors.As(err, &at) {
			row, column := at.Position()
			return nil, errors.New("line " + strconv.Itoa(row) + ", column " + strconv.Itoa(column) + ": " + strings.TrimPrefix(at.Error(), "toml: "))
		}
		return nil, err
	}
	return tree, nil
}

// parseJSON refuses keys that stand twice, which encoding/json would not.
func parseJSON(data []byte) (map[string]any, error) {
	d := jsontext.NewDecoder(bytes.NewReader(data))
	v, err := jsonValue(d)
	if err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "jsontext: "))
	}
	tree, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("is not an object")
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return nil, errors.New("something follows the document")
	}
	return tree, nil
}

func jsonValue(d *jsontext.Decoder) (any, error) {
	if d.StackDepth() > maxNesting {
		return nil, errors.New("is nested too deeply")
	}
	t, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	switch t.Kind() {
	case '"':
		return t.String(), nil
	case 't', 'f':
		return t.Bool(), nil
	case '0':
		if n, err := strconv.ParseInt(t.String(), 10, 64); err == nil {
			return n, nil
		}
		f, err := strconv.ParseFloat(t.String(), 64)
		if err != nil || math.IsInf(f, 0) {
			return nil, errors.New("the number " + t.String() + " is too large")
		}
		return f, nil
	case '[':
		list := []any{}
		for d.PeekKind() != ']' {
			v, err := jsonValue(d)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := d.ReadToken()
		return list, err
	case '{':
		table := map[string]any{}
		for d.PeekKind() != '}' {
			name, err := d.ReadToken()
			if err != nil {
				return nil, err
			}
			key := name.String() // the token is gone after the next
			if table[key], err = jsonValue(d); err != nil {
				return nil, err
			}
		}
		_, err := d.ReadToken()
		return table, err
	}
	return nil, nil // null
}
