// Package spectest holds the malformed requests that the decoder and the
// programs are tested with. It is for tests only.
package spectest

import (
	"bytes"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

//go:embed malformed.json
var malformed []byte

// Case is a document that is not a valid request.
type Case struct {
	Name string `json:"name"`
	// Document is a string, or a list of pieces: strings, {"repeat", "times"}
	// for what is too long to be written down, and {"hex"} for what is not
	// UTF-8. Bytes puts it together.
	Document json.RawMessage `json:"document"`
	// Want are all problems, in the order in which they are reported.
	Want []Problem `json:"want"`
}

// Problem is one entry of error.details.problems.
type Problem struct {
	Code    string `json:"code"`
	Pointer string `json:"pointer"`
}

// Malformed lists the cases.
func Malformed() ([]Case, error) {
	var cases []Case
	if err := json.Unmarshal(malformed, &cases); err != nil {
		return nil, fmt.Errorf("malformed.json: %w", err)
	}
	return cases, nil
}

// Bytes gives the document. Three of them have 100 MB, so that it is best not
// to hold more than one.
func (c Case) Bytes() ([]byte, error) {
	var text string
	if json.Unmarshal(c.Document, &text) == nil {
		return []byte(text), nil
	}
	var pieces []json.RawMessage
	if err := json.Unmarshal(c.Document, &pieces); err != nil {
		return nil, fmt.Errorf("%s: %w", c.Name, err)
	}
	var all []byte
	for _, raw := range pieces {
		b, err := piece(raw)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.Name, err)
		}
		all = append(all, b...)
	}
	return all, nil
}

func piece(raw json.RawMessage) ([]byte, error) {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return []byte(text), nil
	}
	var p struct {
		Repeat string
		Times  int
		Hex    string
	}
	if err := json.Unmarshal(raw, &p); err != nil {
		return nil, err
	}
	if p.Hex != "" {
		return hex.DecodeString(p.Hex)
	}
	return bytes.Repeat([]byte(p.Repeat), p.Times), nil
}
