package doctest

import (
	"go/ast"
)

// declarations are the exported types, functions and constants of a file.
func declarations(file *ast.File) []string {
	var all []string
	add := func(id *ast.Ident) {
		if id.IsExported() {
			all = append(all, id.Name)
		}
	}
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil {
				add(d.Name)
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					add(s.Name)
				case *ast.ValueSpec:
					for _, id := range s.Names {
						add(id)
					}
				}
			}
		}
	}
	return all
}
