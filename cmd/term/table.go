package term

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
	kindWhole  kind = iota // nothing: it is there to be copied
	kindProse              // cut short
	kindID                 // cut to its beginning, which commands take too
	kindFigure             // nothing; to the right
)

const (
	gap        = 2  // between columns
	proseLeast = 12 // to which prose is cut
	idLeast    = 8  // to which an id is cut, if that tells it from the others
	// Unknown stands for what is not known.
	Unknown = "-"
)

// Column is one column of a table.
type Column struct {
	head string
	kind kind
}

// Whole is a column that is there to be copied.
func Whole(head string) Column { return Column{head, kindWhole} }

// Prose is a column that may be cut short.
func Prose(head string) Column { return Column{head, kindProse} }

// ID is a column of ids, which may be cut to a beginning that tells them apart.
func ID(head string) Column { return Column{head, kindID} }

// Figure is a column of numbers.
func Figure(head string) Column { return Column{head, kindFigure} }

// Table is what is printed in columns.
type Table struct {
	Columns []Column
	rows    [][]string
	Empty   string // said instead of a table without rows
}

// Add adds a row, with a cell for each column.
func (t *Table) Add(cells ...string) {
	for i, cell := range cells {
		cells[i] = Plain(cell)
	}
	t.rows = append(t.rows, cells)
}

// Print prints the table so that it fits where a terminal is, and whole where none
// is.
func (t *Table) Print(w io.Writer) error { return t.printIn(w, WidthOf(w)) }

// printIn prints the table into so many columns of a terminal; 0: as many as it
// takes. What does not fit though cut is printed below each other.
func (t *Table) printIn(w io.Writer, width int) error {
	var out bytes.Buffer
	if len(t.rows) == 0 && t.Empty != "" {
		out.WriteString(t.Empty + "\n")
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
func (t *Table) known() *Table {
	k := &Table{rows: make([][]string, len(t.rows))}
	for i, c := range t.Columns {
		if i > 0 && !slices.ContainsFunc(t.rows, func(row []string) bool { return row[i] != Unknown }) {
			continue
		}
		k.Columns = append(k.Columns, c)
		for n, row := range t.rows {
			k.rows[n] = append(k.rows[n], row[i])
		}
	}
	return k
}

// fit cuts the table down to a width, and reports whether it could be.
func (t *Table) fit(width int) (*Table, bool) {
	f := &Table{Columns: t.Columns, rows: make([][]string, len(t.rows))}
	for n, row := range t.rows {
		f.rows[n] = slices.Clone(row)
	}
	widths := f.widths()
	over := func() int { return sum(widths) + gap*(len(widths)-1) - width }
	for i, c := range f.Columns {
		if c.kind == kindID && over() > 0 {
			f.shortenIDs(i)
			widths = f.widths()
		}
	}
	for over() > 0 {
		widest := -1
		for i, c := range f.Columns {
			if c.kind == kindProse && widths[i] > proseLeast && (widest < 0 || widths[i] > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			return nil, false
		}
		widths[widest]--
	}
	for i := range f.Columns {
		for _, row := range f.rows {
			row[i] = Cut(row[i], widths[i])
		}
	}
	return f, true
}

// shortenIDs cuts a column of ids to beginnings that differ.
func (t *Table) shortenIDs(i int) {
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
func (t *Table) widths() []int {
	widths := make([]int, len(t.Columns))
	for i, c := range t.Columns {
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
func (t *Table) lines(out *bytes.Buffer) {
	widths := t.widths()
	line := func(cells []string) {
		var text strings.Builder
		for i, cell := range cells {
			pad := strings.Repeat(" ", widths[i]-runewidth.StringWidth(cell))
			if t.Columns[i].kind == kindFigure {
				cell, pad = pad+cell, ""
			}
			text.WriteString(cell + pad + strings.Repeat(" ", gap))
		}
		out.WriteString(strings.TrimRight(text.String(), " ") + "\n")
	}
	heads := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		heads[i] = Cut(c.head, widths[i])
	}
	line(heads)
	for _, row := range t.rows {
		line(row)
	}
}

// blocks prints a line for each cell.
func (t *Table) blocks(out *bytes.Buffer) {
	widest := 0
	for _, c := range t.Columns {
		widest = max(widest, runewidth.StringWidth(c.head))
	}
	for n, row := range t.rows {
		if n > 0 {
			out.WriteByte('\n')
		}
		for i, c := range t.Columns {
			out.WriteString(strings.TrimRight(runewidth.FillRight(c.head, widest+gap)+row[i], " ") + "\n")
		}
	}
}

// Field is a name with what is known under it.
type Field [2]string

// PrintFields prints a line for each field, and breaks the lines of long values
// between words where a terminal is.
func PrintFields(w io.Writer, fields []Field) error { return printFieldsIn(w, fields, WidthOf(w)) }

func printFieldsIn(w io.Writer, fields []Field, width int) error {
	widest := 0
	for _, f := range fields {
		widest = max(widest, runewidth.StringWidth(f[0]))
	}
	var out bytes.Buffer
	indent, room := widest+gap, 0
	if width > 0 {
		room = max(width-indent, proseLeast)
	}
	for _, f := range fields {
		for i, line := range Wrap(Plain(f[1]), room) {
			name := f[0]
			if i > 0 {
				name = ""
			}
			out.WriteString(strings.TrimRight(runewidth.FillRight(name, indent)+line, " ") + "\n")
		}
	}
	_, err := w.Write(out.Bytes())
	return err
}
