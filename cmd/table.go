package cmd

import (
	"bytes"
	"io"
	"slices"
	"strings"

	"github.com/mattn/go-runewidth"
)

// kind says what may be done to a column that does not fit.
type kind int

const (
	whole  kind = iota // nothing: it is there to be copied
	prose              // cut short
	id                 // cut to its beginning, which commands take too
	figure             // nothing; to the right
)

const (
	gap        = 2  // between columns
	proseLeast = 12 // to which prose is cut
	idLeast    = 8  // to which an id is cut, if that tells it from the others
	unknown    = "-"
)

// column is one column of a table.
type column struct {
	head string
	kind kind
}

// table is what is printed in columns.
type table struct {
	columns []column
	rows    [][]string
	empty   string // said instead of a table without rows
}

// add adds a row, with a cell for each column.
func (t *table) add(cells ...string) {
	for i, cell := range cells {
		cells[i] = plain(cell)
	}
	t.rows = append(t.rows, cells)
}

// print prints the table so that it fits where a terminal is, and whole where none
// is.
func (t *table) print(w io.Writer) error { return t.printIn(w, widthOf(w)) }

// printIn prints the table into so many columns of a terminal; 0: as many as it
// takes. What does not fit though cut is printed below each other.
func (t *table) printIn(w io.Writer, width int) error {
	var out bytes.Buffer
	if len(t.rows) == 0 && t.empty != "" {
		out.WriteString(t.empty + "\n")
	} else if width == 0 {
		t.lines(&out)
	} else if fitting, fits := t.known().fit(width); fits {
		fitting.lines(&out)
	} else {
		t.known().blocks(&out)
	}
	_, err := w.Write(out.Bytes())
	return err
}

// known is the table without the columns in which nothing is known.
func (t *table) known() *table {
	k := &table{rows: make([][]string, len(t.rows))}
	for i, c := range t.columns {
		if i > 0 && !slices.ContainsFunc(t.rows, func(row []string) bool { return row[i] != unknown }) {
			continue
		}
		k.columns = append(k.columns, c)
		for n, row := range t.rows {
			k.rows[n] = append(k.rows[n], row[i])
		}
	}
	return k
}

// fit cuts the table down to a width, and reports whether it could be.
func (t *table) fit(width int) (*table, bool) {
	f := &table{columns: t.columns, rows: make([][]string, len(t.rows))}
	for n, row := range t.rows {
		f.rows[n] = slices.Clone(row)
	}
	widths := f.widths()
	over := func() int { return sum(widths) + gap*(len(widths)-1) - width }
	for i, c := range f.columns {
		if c.kind == id && over() > 0 {
			f.shortenIDs(i)
			widths = f.widths()
		}
	}
	for over() > 0 {
		widest := -1
		for i, c := range f.columns {
			if c.kind == prose && widths[i] > proseLeast && (widest < 0 || widths[i] > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			return nil, false
		}
		widths[widest]--
	}
	for i := range f.columns {
		for _, row := range f.rows {
			row[i] = cut(row[i], widths[i])
		}
	}
	return f, true
}

// shortenIDs cuts a column of ids to beginnings that differ.
func (t *table) shortenIDs(i int) {
	for n := idLeast; ; n++ {
		seen, longest := map[string]string{}, 0
		unique := true
		for _, row := range t.rows {
			full := row[i]
			short := full[:min(n, len(full))]
			longest = max(longest, len(full))
			if other, is := seen[short]; is && other != full {
				unique = false
			}
			seen[short] = full
		}
		if !unique && n < longest {
			continue
		}
		for _, row := range t.rows {
			row[i] = row[i][:min(n, len(row[i]))]
		}
		return
	}
}

// widths are the columns of the terminal that each column takes.
func (t *table) widths() []int {
	widths := make([]int, len(t.columns))
	for i, c := range t.columns {
		widths[i] = runewidth.StringWidth(c.head)
		for _, row := range t.rows {
			widths[i] = max(widths[i], runewidth.StringWidth(row[i]))
		}
	}
	return widths
}

func sum(list []int) (n int) {
	for _, one := range list {
		n += one
	}
	return n
}

// lines prints a line for each row.
func (t *table) lines(out *bytes.Buffer) {
	widths := t.widths()
	line := func(cells []string) {
		var text strings.Builder
		for i, cell := range cells {
			pad := strings.Repeat(" ", widths[i]-runewidth.StringWidth(cell))
			if t.columns[i].kind == figure {
				cell, pad = pad+cell, ""
			}
			text.WriteString(cell + pad + strings.Repeat(" ", gap))
		}
		out.WriteString(strings.TrimRight(text.String(), " ") + "\n")
	}
	heads := make([]string, len(t.columns))
	for i, c := range t.columns {
		heads[i] = cut(c.head, widths[i])
	}
	line(heads)
	for _, row := range t.rows {
		line(row)
	}
}

// blocks prints a line for each cell.
func (t *table) blocks(out *bytes.Buffer) {
	widest := 0
	for _, c := range t.columns {
		widest = max(widest, runewidth.StringWidth(c.head))
	}
	for n, row := range t.rows {
		if n > 0 {
			out.WriteByte('\n')
		}
		for i, c := range t.columns {
			out.WriteString(strings.TrimRight(runewidth.FillRight(c.head, widest+gap)+row[i], " ") + "\n")
		}
	}
}

// field is a name with what is known under it.
type field struct{ name, value string }

// printFields prints a line for each field, and breaks the lines of long values
// between words where a terminal is.
func printFields(w io.Writer, fields []field) error { return printFieldsIn(w, fields, widthOf(w)) }

func printFieldsIn(w io.Writer, fields []field, width int) error {
	widest := 0
	for _, f := range fields {
		widest = max(widest, runewidth.StringWidth(f.name))
	}
	var out bytes.Buffer
	indent, room := widest+gap, 0
	if width > 0 {
		room = max(width-indent, proseLeast)
	}
	for _, f := range fields {
		for i, line := range wrap(plain(f.value), room) {
			name := f.name
			if i > 0 {
				name = ""
			}
			out.WriteString(strings.TrimRight(runewidth.FillRight(name, indent)+line, " ") + "\n")
		}
	}
	_, err := w.Write(out.Bytes())
	return err
}
