package term

import (
	"strings"
	"testing"

	"github.com/mattn/go-runewidth"
)

func jobTable() *Table {
	t := &Table{Columns: []Column{ID("ID"), Whole("STATE"), Figure("REPOS"), Prose("COVERS"), Whole("NEXT")}}
	t.Add("6c0e8a3e-3c55-4dd3-9a5a-0b3d3f7c1a20", "running", "1,234", "xyz.statusphere.status", "-")
	t.Add("6c0e8a3e-9c55-4dd3-9a5a-0b3d3f7c1a21", "completed", "7", "すべてのコレクション of \x1b[31mdid:plc:abc\n", "-")
	return t
}

func TestTablesAreWholeWhereNoTerminalIs(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	if err := jobTable().printIn(&out, 0); err != nil {
		t.Fatal(err)
	}
	want := `ID                                    STATE      REPOS  COVERS                                     NEXT
6c0e8a3e-3c55-4dd3-9a5a-0b3d3f7c1a20  running    1,234  xyz.statusphere.status                     -
6c0e8a3e-9c55-4dd3-9a5a-0b3d3f7c1a21  completed      7  すべてのコレクション of  [31mdid:plc:abc   -
`
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", out.String(), want)
	}
}

func TestTablesFitTheTerminal(t *testing.T) {
	t.Parallel()
	for width := 10; width < 120; width++ {
		var out strings.Builder
		if err := jobTable().printIn(&out, width); err != nil {
			t.Fatal(err)
		}
		blocks := strings.HasPrefix(out.String(), "ID      6c0e")
		if blocks != (width < 42) {
			t.Errorf("%d columns:\n%s", width, out.String())
		}
		for line := range strings.Lines(out.String()) {
			if n := runewidth.StringWidth(strings.TrimSuffix(line, "\n")); n > width && !blocks {
				t.Errorf("%d columns: a line has %d: %s", width, n, line)
			}
			if strings.HasSuffix(line, " \n") {
				t.Errorf("%d columns: a line ends with a space: %q", width, line)
			}
		}
		if strings.Contains(out.String(), "NEXT") {
			t.Errorf("%d columns: a column in which nothing is known:\n%s", width, out.String())
		}
		if width < 120 && (!strings.Contains(out.String(), "6c0e8a3e-3") || !strings.Contains(out.String(), "6c0e8a3e-9")) {
			t.Errorf("%d columns: the ids do not differ:\n%s", width, out.String())
		}
	}
	var out strings.Builder
	if err := jobTable().printIn(&out, 50); err != nil {
		t.Fatal(err)
	}
	want := `ID          STATE      REPOS  COVERS
6c0e8a3e-3  running    1,234  xyz.statusphere.sta…
6c0e8a3e-9  completed      7  すべてのコレクショ…
`
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", out.String(), want)
	}
}

func TestFieldsBreakBetweenWords(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	fields := []Field{{"job", "6c0e8a3e"}, {"error", "3 of 42 repos could not be read: 2 timeout, 1 http_5xx"}, {"note", ""}}
	if err := printFieldsIn(&out, fields, 30); err != nil {
		t.Fatal(err)
	}
	want := `job    6c0e8a3e
error  3 of 42 repos could not
       be read: 2 timeout, 1
       http_5xx
note
`
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", out.String(), want)
	}
	out.Reset()
	if err := printFieldsIn(&out, fields, 0); err != nil || strings.Count(out.String(), "\n") != 3 {
		t.Errorf("%v:\n%s", err, out.String())
	}
}
