package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Table is the output for people: columns below their names, or one resource as names with values.
type Table struct {
	rows   [][]string
	header int // how many of rows are names of columns: 0 or 1
	// Note is printed below the table.
	Note string
}

// Columns sets the names of the columns of a list.
func (t *Table) Columns(names ...string) {
	t.rows, t.header = append(t.rows, names), 1
}

// Row adds a row. An empty cell is printed as a dash.
func (t *Table) Row(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		if row[i] = Printable(fmt.Sprint(c)); row[i] == "" {
			row[i] = "-"
		}
	}
	t.rows = append(t.rows, row)
}

// Field adds a name with its value, unless the value is empty.
func (t *Table) Field(name string, value any) {
	if fmt.Sprint(value) != "" {
		t.Row(name+":", value)
	}
}

// Otherwise sets what is printed instead of a table without rows.
func (t *Table) Otherwise(format string, args ...any) {
	if len(t.rows) == t.header {
		t.rows, t.Note = nil, fmt.Sprintf(format, args...)
	}
}

// Clear removes the columns and the rows, and leaves the note.
func (t *Table) Clear() { t.rows, t.header = nil, 0 }

func (t *Table) write(w io.Writer) error {
	const gap = 3
	tabs := tabwriter.NewWriter(w, 0, 0, gap, ' ', 0)
	for _, r := range t.rows {
		if _, err := fmt.Fprintln(tabs, strings.Join(r, "\t")); err != nil {
			return err
		}
	}
	if err := tabs.Flush(); err != nil {
		return err
	}
	if t.Note != "" {
		if _, err := fmt.Fprintln(w, t.Note); err != nil {
			return err
		}
	}
	return nil
}
