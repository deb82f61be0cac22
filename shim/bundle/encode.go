package bundle

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/runtime/specjson"
)

// Encode is the content of config.json: indented JSON in the order of the OCI
// documents, ending in a newline. Text that is not UTF-8 cannot be expressed
// in JSON and is E2009.
func Encode(s *specs.Spec) ([]byte, error) { return encode(s, "") }

// encode is Encode with the JSON of linux.seccomp in place of the object, which
// is long and stands ready. Empty: the object is encoded.
func encode(s *specs.Spec, filter string) ([]byte, error) {
	w := specjson.NewWriter(12<<10+len(filter), true)
	if filter != "" {
		changed, linux := *s, *s.Linux
		linux.Seccomp = new(specs.LinuxSeccomp)
		changed.Linux = &linux
		s = &changed
		w.Ready(linux.Seccomp, filter)
	}
	text, err := w.Spec(s).Bytes()
	if err != nil {
		return nil, err
	}
	return append(text, '\n'), nil
}

// encodeSkeleton is the value of plan.AnnotationSkeleton.
func encodeSkeleton(sk *plan.Skeleton) string {
	w := specjson.NewWriter(2048, false).Open('{')
	if sk.SizeBytes != 0 {
		w.Key("size_bytes").Int(sk.SizeBytes)
	}
	if sk.Inodes != 0 {
		w.Key("inodes").Int(sk.Inodes)
	}
	if len(sk.Directories) > 0 {
		w.Key("directories").Strings(sk.Directories)
	}
	if len(sk.Symlinks) > 0 {
		w.Key("symlinks").Open('[')
		for _, l := range sk.Symlinks {
			w.Next().Open('{').Key("path").Str(l.Path).Key("target").Str(l.Target).Close('}')
		}
		w.Close(']')
	}
	if len(sk.Files) > 0 {
		w.Key("files").Open('[')
		for _, f := range sk.Files {
			w.Next().Open('{').Key("path").Str(f.Path).Key("content").Str(f.Content).Close('}')
		}
		w.Close(']')
	}
	text, _ := w.Close('}').Bytes() // text that is not UTF-8 is refused with the annotation
	return string(text)
}
