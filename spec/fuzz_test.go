package spec_test

import (
	"testing"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/spectest"
)

// FuzzDecodeRequest holds that decoding never panics, that an accepted request
// is valid and complete, and that it crosses a process boundary unchanged. The
// corpus is the table of malformed documents and the valid ones of testdata.
func FuzzDecodeRequest(f *testing.F) {
	cases, err := spectest.Malformed()
	if err != nil {
		f.Fatal(err)
	}
	for _, c := range cases {
		if document, err := c.Bytes(); err == nil && len(document) < 10000 {
			f.Add(document)
		}
	}
	f.Add([]byte(`{"command":["true"]}`))
	f.Add(read(f, "testdata/full.json"))
	f.Add(read(f, "testdata/full.resolved.json"))
	f.Fuzz(func(t *testing.T, document []byte) {
		_, _ = spec.DecodeResolved(document)
		_, _ = spec.DecodeResponse(document)
		r, err := spec.DecodeRequest(document)
		if err != nil {
			if e := spec.ErrorFrom(err); e.Code == "" || e.Message == "" {
				t.Errorf("%v gives %+v", err, e)
			}
			return
		}
		if err := r.Validate(); err != nil {
			t.Fatalf("accepted but not valid: %v", err)
		}
		before := string(r.Encode())
		r.Complete()
		if after := string(r.Encode()); after != before {
			t.Fatalf("not complete:\n%s\n%s", before, after)
		}
		resolved(t, r)
	})
}
