// Protogen turns .proto files into Go without protoc. It parses and links them
// with protocompile, which is a Go module like any other, and then speaks
// protoc's plugin protocol to the generators that go.mod pins as tools. What these
// make is for programs that live long; plain.go makes the rest.
//
//	go run ./hack/protogen [-out DIR] FILE.proto...
//
// Files are named relative to the current directory, which is also the import
// root. Each output stands beside its .proto, or in plain there, below DIR (default: here).
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/linker"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

// plugins lists the generators in the order in which they run. Both are `tool`
// entries of go.mod, so their versions are those of the libraries that the
// generated code imports.
func plugins() []string { return []string{"protoc-gen-go", "protoc-gen-go-ttrpc"} }

func main() {
	out := flag.String("out", ".", "directory below which the output is written")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: protogen [-out DIR] FILE.proto...")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(context.Background(), *out, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "protogen:", err)
		os.Exit(1)
	}
}

// run compiles the named files and writes what every plugin makes of them.
func run(ctx context.Context, out string, names []string) error {
	for i, n := range names {
		names[i] = filepath.ToSlash(filepath.Clean(n))
	}
	compiler := protocompile.Compiler{
		Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{}),
		// The generators copy comments from the source information.
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	files, err := compiler.Compile(ctx, names...)
	if err != nil {
		return fmt.Errorf("compile: %w", err)
	}
	request := &pluginpb.CodeGeneratorRequest{
		FileToGenerate: names,
		Parameter:      proto.String("paths=source_relative"),
		ProtoFile:      descriptors(files),
	}
	for _, p := range plugins() {
		response, err := ask(ctx, p, request)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		for _, f := range response.File {
			if err := write(out, f.GetName(), f.GetContent()); err != nil {
				return fmt.Errorf("%s: %w", p, err)
			}
		}
	}
	for _, f := range files {
		if err := writePlain(out, f); err != nil {
			return err
		}
	}
	return nil
}

// descriptors lists the files and all that they import, each once, imports
// before importers, as the plugin protocol demands.
func descriptors(files linker.Files) []*descriptorpb.FileDescriptorProto {
	seen := map[string]bool{}
	var list []*descriptorpb.FileDescriptorProto
	var visit func(protoreflect.FileDescriptor)
	visit = func(f protoreflect.FileDescriptor) {
		if seen[f.Path()] {
			return
		}
		seen[f.Path()] = true
		imports := f.Imports()
		for i := range imports.Len() {
			visit(imports.Get(i).FileDescriptor)
		}
		list = append(list, protodesc.ToFileDescriptorProto(f))
	}
	for _, f := range files {
		visit(f)
	}
	return list
}

// ask runs one plugin and returns its answer. An error that the plugin reports
// is an error here.
func ask(ctx context.Context, plugin string, request *pluginpb.CodeGeneratorRequest) (*pluginpb.CodeGeneratorResponse, error) {
	in, err := proto.Marshal(request)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "go", "tool", plugin)
	cmd.Stdin = bytes.NewReader(in)
	cmd.Stderr = os.Stderr
	answer, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	response := new(pluginpb.CodeGeneratorResponse)
	if err := proto.Unmarshal(answer, response); err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	if response.Error != nil {
		return nil, fmt.Errorf("refused: %s", response.GetError())
	}
	return response, nil
}

// write stores a generated file below out and refuses a name that leaves it.
func write(out, name, text string) error {
	if !filepath.IsLocal(name) {
		return fmt.Errorf("output %q leaves the output directory", name)
	}
	path := filepath.Join(out, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}
