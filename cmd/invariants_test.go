package cmd

import (
	"io/fs"
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
	texts := testsByPackage(t)
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
			wantTest(t, texts, m[1], m[2])
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
				wantTest(t, texts, m[1], name)
			}
		}
	}
}

// testsByPackage is the text of every test file, by the path of its package.
func testsByPackage(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	err := fs.WalkDir(os.DirFS(".."), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && len(path) > 1 && path[0] == '.' {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := fs.ReadFile(os.DirFS(".."), path)
		texts["/"+filepath.ToSlash(filepath.Dir(path))] += string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return texts
}

// wantTest fails unless a package has a test. A package is named by the end of its path.
func wantTest(t *testing.T, texts map[string]string, pkg, name string) {
	t.Helper()
	for path, text := range texts {
		if strings.HasSuffix(path, "/"+pkg) && strings.Contains(text, "\nfunc "+name+"(") {
			return
		}
	}
	t.Errorf("there is no %s.%s", pkg, name)
}
