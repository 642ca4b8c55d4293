package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	// tableWidth is how many characters a line of a table with columns has at most.
	tableWidth = 120
	// columnGap is the space between columns, and narrowGap that of a table that is too wide otherwise.
	columnGap, narrowGap = 3, 2
	// cellFloor is how short a column of texts becomes before the first column, which names the rows, is cut.
	cellFloor = 12
	ellipsis  = "…"
)

// Table is the output for people: columns below their names, or one resource as names with values.
//
// A table with columns fits into 120 characters: the longest texts are cut, and end with an ellipsis. The whole text is
// in 'show' and in the JSON. Columns that [Table.Wrap] names are never cut.
type Table struct {
	rows   [][]string
	header int // how many of rows are names of columns: 0 or 1
	wrap   []string
	// Note is printed below the table.
	Note string
}

// Columns sets the names of the columns of a list.
func (t *Table) Columns(names ...string) {
	t.rows, t.header = append(t.rows, names), 1
}

// Wrap names the columns that continue on further lines, where others are cut.
func (t *Table) Wrap(columns ...string) { t.wrap = columns }

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
		t.Clear()
		t.Note = fmt.Sprintf(format, args...)
	}
}

// Clear removes the columns and the rows, and leaves the note.
func (t *Table) Clear() { t.rows, t.header = nil, 0 }

func (t *Table) write(w io.Writer) error {
	for _, line := range t.lines() {
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	if t.Note != "" {
		if _, err := fmt.Fprintln(w, t.Note); err != nil {
			return err
		}
	}
	return nil
}

// lines returns the table without its note.
func (t *Table) lines() (out []string) {
	widths := t.widths()
	gap := columnGap
	if t.header > 0 {
		if lineWidth(widths, gap) > tableWidth {
			gap = narrowGap
		}
		narrow(widths, t.floors(), tableWidth-gap*(len(widths)-1))
	}
	for _, row := range t.rows {
		out = append(out, t.rowLines(row, widths, gap)...)
	}
	return out
}

// rowLines returns a row as lines: one, unless a cell continues.
func (t *Table) rowLines(row []string, widths []int, gap int) (out []string) {
	cells, height := make([][]string, len(row)), 0
	for i, cell := range row {
		switch {
		case t.header == 0:
			cells[i] = []string{cell}
		case slices.Contains(t.wrap, t.rows[0][i]):
			cells[i] = wrapped(cell, widths[i])
		default:
			cells[i] = []string{cut(cell, widths[i])}
		}
		height = max(height, len(cells[i]))
	}
	for n := range height {
		var line strings.Builder
		for i, cell := range cells {
			text := ""
			if n < len(cell) {
				text = cell[n]
			}
			line.WriteString(text)
			if i < len(cells)-1 {
				line.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text)+gap))
			}
		}
		out = append(out, strings.TrimRight(line.String(), " "))
	}
	return out
}

// widths returns the width of each column's longest cell.
func (t *Table) widths() (out []int) {
	for _, row := range t.rows {
		for i, cell := range row {
			if i == len(out) {
				out = append(out, 0)
			}
			out[i] = max(out[i], utf8.RuneCountInString(cell))
		}
	}
	return out
}

// floors returns how far each column can be narrowed: to its name.
func (t *Table) floors() []int {
	out := make([]int, len(t.rows[0]))
	for i, name := range t.rows[0] {
		out[i] = utf8.RuneCountInString(name)
	}
	return out
}

func lineWidth(widths []int, gap int) int {
	sum := gap * (len(widths) - 1)
	for _, w := range widths {
		sum += w
	}
	return sum
}

// narrow narrows the widest columns, of several the last, until all together have at most the given width, each as far
// as its floor. The first column is narrowed after the others, which stay as wide as a short text before.
func narrow(widths, floors []int, most int) {
	soft := make([]int, len(floors))
	for i, f := range floors {
		soft[i] = max(f, cellFloor)
	}
	soft[0] = widths[0]
	for _, limits := range [][]int{soft, floors} {
		for lineWidth(widths, 0) > most {
			widest := -1
			for i, w := range widths {
				if w > limits[i] && (widest < 0 || w >= widths[widest]) {
					widest = i
				}
			}
			if widest < 0 {
				break
			}
			widths[widest]--
		}
	}
}

// cut returns a text of at most width characters. One that is longer ends with an ellipsis.
func cut(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	return strings.TrimRight(string([]rune(text)[:width-1]), " ") + ellipsis
}

// wrapped returns a text as lines of at most width characters, broken at spaces where there are any.
func wrapped(text string, width int) (lines []string) {
	rest := []rune(text)
	for len(rest) > width {
		at := width
		for i := width; i > 0; i-- {
			if rest[i] == ' ' {
				at = i
				break
			}
		}
		lines = append(lines, string(rest[:at]))
		rest = slices.Clip(rest[at:])
		for len(rest) > 0 && rest[0] == ' ' {
			rest = rest[1:]
		}
	}
	return append(lines, string(rest))
}
