package read

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"appview/store/jobs"
)

func methods() []Method { return []Method{Probing, Listing, Stepping, Unchanged, Whole} }

func certainties() []Certainty {
	return []Certainty{Unseen, OneMoment, Unsettled, Exact, Changed, Incomplete}
}

// TestMovesReachEveryState follows the table from where a reading begins: each method and
// certainty is reached, a final certainty is never left, and what is committed of a
// listing is never read in one piece in the same attempt.
func TestMovesReachEveryState(t *testing.T) {
	t.Parallel()
	seen := map[state]bool{}
	for todo := []state{{}}; len(todo) > 0; todo = todo[1:] {
		s := todo[0]
		if seen[s] {
			continue
		}
		seen[s] = true
		for e := range moves {
			to, ok := s.next(e)
			switch {
			case !ok && to != s:
				t.Errorf("%s on %s: refused, and yet it moves to %s", s, e, to)
			case ok && s.isFinal() && to.sure != s.sure:
				t.Errorf("%s on %s: a final certainty is left for %s", s, e, to)
			case ok && !s.mayTurnWhole() && to.how != Stepping:
				t.Errorf("%s on %s: the committed part of the listing is forgotten for %s", s, e, to)
			}
			if to.how == Whole && to.sure != Unseen && to.sure != Exact || to.how == Probing && to.sure != Unseen {
				t.Errorf("%s on %s: %s means nothing", s, e, to)
			}
			if ok {
				todo = append(todo, to)
			}
		}
	}
	for _, m := range methods() {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(seen)), func(s state) bool { return s.how == m }) {
			t.Errorf("no reading is ever %s", m)
		}
	}
	for _, c := range certainties() {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(seen)), func(s state) bool { return s.sure == c }) {
			t.Errorf("no reading is ever %s", c)
		}
	}
}

// TestDiagramsShowTheTable compares the diagrams of docs/architecture.md with the table.
func TestDiagramsShowTheTable(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for e, m := range moves {
		for from, to := range m.how {
			want = append(want, fmt.Sprintf("%s --> %s: %s", from, to, e))
		}
		for from, to := range m.sure {
			want = append(want, fmt.Sprintf("%s --> %s: %s", from, to, e))
		}
	}
	names := []string{}
	for _, m := range methods() {
		names = append(names, m.String())
	}
	for _, c := range certainties() {
		names = append(names, c.String())
	}
	name := "(?:" + strings.Join(names, "|") + ")"
	var got []string
	for _, m := range regexp.MustCompile(`(?m)^ *(`+name+`) --> (`+name+`): (.+)$`).FindAllStringSubmatch(string(text), -1) {
		for e := range strings.SplitSeq(m[3], ", ") {
			got = append(got, fmt.Sprintf("%s --> %s: %s", m[1], m[2], e))
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("the diagrams lack %q", line)
		}
	}
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("the table lacks %q", line)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d moves in the diagrams, %d in the table", len(got), len(want))
	}
}

// TestWayOfARepoIsAsWritten reads the list of functions in docs/architecture.md: they are
// where it says, and neither are they many, nor does the way lead back to a file.
func TestWayOfARepoIsAsWritten(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	stops := regexp.MustCompile("(?m)^\\| \\d+ \\| `\\(\\*(\\w+)\\)\\.(\\w+)` \\| (?:`(.+?)` )?\\|").FindAllStringSubmatch(string(text), -1)
	if len(stops) == 0 || len(stops) > 12 {
		t.Errorf("%d stops, want at most 12", len(stops))
	}
	files := []string{}
	for _, stop := range stops {
		if path := stop[3]; path != "" {
			if slices.Contains(files, path) {
				t.Errorf("the way leads back to %s", path)
			}
			files = append(files, path)
		}
		code, err := os.ReadFile("../../" + files[len(files)-1])
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(`(?m)^func \(\w+ \*` + stop[1] + `\) ` + stop[2] + `\(`).Match(code) {
			t.Errorf("%s has no %s of a %s", files[len(files)-1], stop[2], stop[1])
		}
	}
	if len(files) > 7 {
		t.Errorf("%d files, want at most 7", len(files))
	}
}

// TestBooleansAreListed finds the booleans of the structs of this package: each is in the
// list in docs/architecture.md, which is short.
func TestBooleansAreListed(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := regexp.MustCompile("(?m)^\\| `\\w+\\.(\\w+)` \\|").FindAllStringSubmatch(string(text), -1)
	if len(listed) == 0 || len(listed) > 8 {
		t.Errorf("%d booleans are listed, want at most 8", len(listed))
	}
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		code, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		for _, m := range regexp.MustCompile(`(?m)^\t(\w+) +(?:map\[\w+\])?bool\b`).FindAllStringSubmatch(string(code), -1) {
			if !slices.ContainsFunc(listed, func(l []string) bool { return l[1] == m[1] }) {
				t.Errorf("%s: %s is not listed", path, m[1])
			}
		}
	}
}

// TestIllegalMoveEndsTheReading moves a reading as no reading may.
func TestIllegalMoveEndsTheReading(t *testing.T) {
	t.Parallel()
	r := &reading{Reader: reader(), owed: jobs.Owed{DID: "did:plc:a"}}
	r.move(begin)
	r.move(answer)
	r.move(confirm)
	if r.illegal != nil || r.state != (state{Listing, Exact}) {
		t.Fatalf("%s, %v", r.state, r.illegal)
	}
	r.move(miss)
	if r.illegal == nil || r.sure != Exact {
		t.Fatalf("a final certainty was left for %s, %v", r.state, r.illegal)
	}
	if got := r.fail(t.Context(), nil); got.Err == nil || got.Err != r.illegal { //nolint:errorlint // the same error
		t.Errorf("the attempt ends with %v", got.Err)
	}
}

// TestExtentsAreStoredAsTheyAre brings each extent into a row and back.
func TestExtentsAreStoredAsTheyAre(t *testing.T) {
	t.Parallel()
	for _, c := range []collection{
		{},
		{cursor: "c", last: "k", order: jobs.OrderNone, ambiguous: true},
		{Extent: Complete},
		{Extent: Complete, ambiguous: true},
		{Extent: EndAssumed},
		{Extent: Held},
		{Extent: Broken, broken: "the cursor came twice", ambiguous: true},
	} {
		if got := collectionOf(c.row()); got != c {
			t.Errorf("%+v becomes %+v", c, got)
		}
	}
}
