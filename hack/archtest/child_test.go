package archtest

import (
	"go/ast"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// childFile runs between clone and execve, in a process that has only one of
// its threads left: it may not allocate, lock, grow its stack or call into the
// Go runtime.
const childFile = "runtime/launch/child_linux.go"

func TestForkedChildKeepsItsRules(t *testing.T) {
	i := slices.IndexFunc(sources(t), func(s source) bool { return s.path == childFile })
	if i < 0 {
		t.Fatalf("%s is gone; name the file that runs in the forked child", childFile)
	}
	file := sources(t)[i].file
	may := []string{"syscall", "unsafe", "golang.org/x/sys/unix", module + "/runtime/plan"}
	for _, imp := range file.Imports {
		if path, err := strconv.Unquote(imp.Path.Value); err != nil || !slices.Contains(may, path) {
			t.Errorf("%s imports %s, which its list does not have", childFile, imp.Path.Value)
		}
	}
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Body != nil {
			childFunction(t, f)
		}
	}
}

// childFunction checks one function. forkSandbox is the one that both sides of
// the clone are in; it may be split, as it runs with growth already forbidden.
func childFunction(t *testing.T, f *ast.FuncDecl) {
	t.Helper()
	name := f.Name.Name
	directives := ""
	if f.Doc != nil {
		for _, c := range f.Doc.List {
			directives += c.Text + "\n"
		}
	}
	if !strings.Contains(directives, "//go:norace") {
		t.Errorf("%s lacks go:norace", name)
	}
	if !strings.Contains(directives, "//go:nosplit") && name != "forkSandbox" {
		t.Errorf("%s lacks go:nosplit", name)
	}
	ast.Inspect(f.Body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt, *ast.DeferStmt, *ast.SelectStmt, *ast.SendStmt, *ast.FuncLit, *ast.TypeAssertExpr:
			t.Errorf("%s has a %T, which needs the Go runtime", name, n)
		case *ast.CallExpr:
			if id, ok := n.Fun.(*ast.Ident); ok && slices.Contains([]string{"make", "new", "append", "panic", "print", "println", "recover", "copy"}, id.Name) {
				t.Errorf("%s calls %s, which needs the Go runtime", name, id.Name)
			}
		}
		return true
	})
}
