package backfill_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// makers are the store's functions that take what a change does as their second
// argument.
var makers = []string{"do", "doOnce", "changeJob"}

// commitKinds are the kinds of changes that the store can make, as its source has
// them: how their texts begin, what follows being what they are made to.
func commitKinds(tb testing.TB) (kinds []string) {
	tb.Helper()
	files, err := filepath.Glob("../store/*.go")
	if err != nil || len(files) == 0 {
		tb.Fatalf("the source of the store: %v, %v", files, err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			tb.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			var op ast.Expr
			switch n := n.(type) {
			case *ast.FuncDecl:
				return !slices.Contains(makers, n.Name.Name)
			case *ast.CompositeLit:
				if id, ok := n.Type.(*ast.Ident); ok && id.Name == "change" {
					op = member(n, "op")
				}
			case *ast.CallExpr:
				if f, ok := n.Fun.(*ast.SelectorExpr); ok && slices.Contains(makers, f.Sel.Name) && len(n.Args) > 1 {
					op = n.Args[1]
				}
			}
			if op == nil {
				return true
			}
			kind, ok := beginning(op)
			if !ok {
				tb.Errorf("%s: a change is named by something that is no text: is there another of %v?", name, makers)
			}
			kinds = append(kinds, kind)
			return true
		})
	}
	slices.Sort(kinds)
	return slices.Compact(kinds)
}

func member(lit *ast.CompositeLit, name string) ast.Expr {
	for _, e := range lit.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			if id, ok := kv.Key.(*ast.Ident); ok && id.Name == name {
				return kv.Value
			}
		}
	}
	return nil
}

// beginning is the text with which an expression begins.
func beginning(e ast.Expr) (string, bool) {
	for {
		switch x := e.(type) {
		case *ast.BinaryExpr:
			e = x.X
		case *ast.BasicLit:
			text, err := strconv.Unquote(x.Value)
			return text, err == nil
		default:
			return "", false
		}
	}
}

// kindOf is the kind of a change.
func kindOf(kinds []string, op string) string {
	best := ""
	for _, k := range kinds {
		if strings.HasPrefix(op, k) && len(k) > len(best) {
			best = k
		}
	}
	return best
}
