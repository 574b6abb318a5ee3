package cmd

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// maxInvariants keeps the list short enough to be read before a change.
const maxInvariants = 20

var (
	rule       = regexp.MustCompile(`(?m)^\d+\. \*\*`)
	namedTest  = regexp.MustCompile("`([\\w/]+)\\.(Test\\w+)`")
	mutantTest = regexp.MustCompile(`(?m)^Tests: \./([\w/]+) (\S+)$`)
)

// TestInvariantsAreGuardedByTestsThatExist reads docs/invariants.md and the patches of
// the mutation check. What they name must be there, and no rule be without a guard.
func TestInvariantsAreGuardedByTestsThatExist(t *testing.T) {
	t.Parallel()
	text := read(t, "../docs/invariants.md")
	starts := rule.FindAllStringIndex(text, -1)
	if len(starts) == 0 || len(starts) > maxInvariants {
		t.Errorf("%d rules, want at most %d", len(starts), maxInvariants)
	}
	for i, at := range starts {
		end := len(text)
		if i+1 < len(starts) {
			end = starts[i+1][0]
		}
		named := namedTest.FindAllStringSubmatch(text[at[0]:end], -1)
		if len(named) == 0 {
			t.Errorf("nothing guards rule %d", i+1)
		}
		for _, m := range named {
			wantTest(t, m[1], m[2])
		}
	}
	patches, err := filepath.Glob("../.ci/mutants/*.patch")
	if err != nil || len(patches) < 12 {
		t.Fatalf("%d patches of the mutation check, %v", len(patches), err)
	}
	for _, path := range patches {
		found := mutantTest.FindAllStringSubmatch(read(t, path), -1)
		if len(found) == 0 {
			t.Errorf("%s names no test", path)
		}
		for _, m := range found {
			for name := range strings.SplitSeq(m[2], "|") {
				wantTest(t, m[1], name)
			}
		}
	}
}

// wantTest fails unless a package has a test. A package below another one may be named
// without it.
func wantTest(t *testing.T, pkg, name string) {
	t.Helper()
	files, err := filepath.Glob("../" + pkg + "/*_test.go")
	below, failed := filepath.Glob("../*/" + pkg + "/*_test.go")
	if err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	for _, path := range append(files, below...) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(data), "\nfunc "+name+"(") {
			return
		}
	}
	t.Errorf("there is no %s.%s", pkg, name)
}
