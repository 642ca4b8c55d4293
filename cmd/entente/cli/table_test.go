package cli

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestTable(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	for name, test := range map[string]struct {
		fill func(*Table)
		want string
	}{
		"columns": {
			func(t *Table) {
				t.Columns("ID", "STATE")
				t.Row("eu-1", "")
				t.Row("é", "a\nb")
			},
			"ID     STATE\neu-1   -\né      a\\nb\n",
		},
		"fields are never cut": {
			func(t *Table) {
				t.Field("digest", long(130))
				t.Field("x", 1)
				t.Field("empty", "")
			},
			"digest:   " + long(130) + "\nx:        1\n",
		},
		"a wide table has narrow gaps first": {
			func(t *Table) {
				t.Columns("ID", "A", "B")
				t.Row("1", long(57), long(57))
			},
			"ID  A" + strings.Repeat(" ", 58) + "B\n1   " + long(57) + "  " + long(57) + "\n",
		},
		"the widest column is cut": {
			func(t *Table) {
				t.Columns("ID", "A", "B")
				t.Row(long(30), long(20), long(90))
			},
			"ID" + strings.Repeat(" ", 30) + "A" + strings.Repeat(" ", 21) + "B\n" +
				long(30) + "  " + long(20) + "  " + long(65) + "…\n",
		},
		"the first column is cut last": {
			func(t *Table) {
				t.Columns("ID", "A")
				t.Row(long(200), long(50))
			},
			"ID" + strings.Repeat(" ", 106) + "A\n" + long(105) + "…  " + long(11) + "…\n",
		},
		"no space before the ellipsis": {
			func(t *Table) {
				t.Columns("ID", "A")
				t.Row("1", long(114)+" "+long(9))
			},
			"ID  A\n1   " + long(114) + "…\n",
		},
		"a text that continues": {
			func(t *Table) {
				t.Columns("ID", "A", "B")
				t.Wrap("A")
				t.Row("1", long(100)+" "+long(50)+" "+long(130), "b")
				t.Note = "note"
			},
			"ID  A" + strings.Repeat(" ", 114) + "B\n1   " + long(100) + strings.Repeat(" ", 15) + "b\n" +
				"    " + long(50) + "\n    " + long(113) + "\n    " + long(17) + "\nnote\n",
		},
		"nothing": {
			func(t *Table) {
				t.Columns("ID", "A")
				t.Otherwise("There is no %s.", "x")
			},
			"There is no x.\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			table := &Table{}
			test.fill(table)
			require.NoError(t, table.write(&out))
			require.Equal(t, test.want, out.String())
		})
	}
}

// FuzzTable: a table with columns never has a longer line than a terminal, whatever its cells are.
func FuzzTable(f *testing.F) {
	f.Add(strings.Repeat("x", 300), "a b", strings.Repeat("é ", 200), true)
	f.Fuzz(func(t *testing.T, a, b, c string, wrap bool) {
		table := &Table{}
		table.Columns("FIRST", "SECOND", "THIRD", "AND A LAST ONE")
		if wrap {
			table.Wrap("SECOND", "AND A LAST ONE")
		}
		table.Row(a, b, c, a+b)
		table.Row(c, a, b, c+" "+a)
		for _, line := range table.lines() {
			if utf8.RuneCountInString(line) > tableWidth {
				t.Fatalf("%d characters: %q", utf8.RuneCountInString(line), line)
			}
		}
	})
}
