package docs

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// variable are the parts of a line that differ from run to run, and what stands for each in its shape.
var variable = []struct {
	pattern *regexp.Regexp
	shape   string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "<time>"},
	{regexp.MustCompile(`\b[A-Z][a-z]{2} +\d+ \d\d:\d\d:\d\d \d{4} GMT\b`), "<time>"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+0000 UTC`), "<time>"},
	{regexp.MustCompile(`\b(just now|in (\d+[smhd])+|(\d+[smhd])+ ago)`), "<moment>"},
	{regexp.MustCompile(`\b\d+(\.\d+)? ?m?s\b`), "<duration>"},
	{regexp.MustCompile(`\b([0-9A-F]{2}:){7,}[0-9A-F]{2}\b`), "<serial>"},
	{regexp.MustCompile(`/\S*/entente-(dev|demo)-\d+`), "<folder>"},
	{regexp.MustCompile(`\b(127\.0\.0\.1|localhost):\d+`), "$1:<port>"},
	{regexp.MustCompile(`\bentente-(join|federate)-1-[\w-]+`), "<token>"},
	{regexp.MustCompile(`\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b`), "<id>"},
	{regexp.MustCompile(`\b[0-9a-f]{8,}\b`), "<hex>"},
	{regexp.MustCompile(`\b[a-z2-7]{16}\b`), "<id>"},
	{regexp.MustCompile(`\b(uid|pid|[Ss]equence:?|[Rr]evision:?|change) +\d+`), "$1 <n>"},
}

// columns are the columns of tables whose cells differ from run to run.
var columns = []string{"SEQUENCE", "REVISION", "OWNER", "VERSION"}

var (
	gap    = regexp.MustCompile(` {2,}`)
	header = regexp.MustCompile(`^[A-Z][A-Z0-9 -]*( {2,}[A-Z][A-Z0-9 -]*)+( {2,}…)?$`)
)

// Shape returns lines without what differs from run to run: times, IDs, digests, serial numbers, ports, sequences and
// the widths of columns. Rows of a table whose first column is an ID have the order of their shapes.
func Shape(lines []string) []string {
	var shaped []string
	var titles []string // of the table that the line is in
	first := 0          // of its rows
	for i := 0; i <= len(lines); i++ {
		inside := i < len(lines) && strings.TrimSpace(lines[i]) != "" && !header.MatchString(lines[i])
		if !inside && len(titles) > 0 {
			if titles[0] == "ID" {
				slices.Sort(shaped[first:])
			}
			titles = nil
		}
		if i == len(lines) {
			break
		}
		line := strings.TrimRight(lines[i], " ")
		if header.MatchString(line) {
			titles, first = gap.Split(line, -1), len(shaped)+1
		} else if titles != nil {
			line = row(titles, line)
		}
		for _, v := range variable {
			line = v.pattern.ReplaceAllString(line, v.shape)
		}
		shaped = append(shaped, gap.ReplaceAllString(line, " "))
	}
	return trim(shaped)
}

// row returns a line of a table without the cells of the columns that differ.
func row(titles []string, line string) string {
	cells := gap.Split(line, -1)
	for i := range min(len(titles), len(cells)) {
		if slices.Contains(columns, titles[i]) && cells[i] != "-" && cells[i] != "…" {
			cells[i] = "<" + strings.ToLower(titles[i]) + ">"
		}
	}
	return strings.Join(cells, "  ")
}

// Compare returns an error if the output does not have the shape that a page shows. In what the page shows an ellipsis
// is any text of a line, and a line of an ellipsis alone any number of lines.
func Compare(shown, output []string) error {
	want, got := Shape(shown), Shape(output)
	if matches(want, got) {
		return nil
	}
	return fmt.Errorf("the page shows\n    %s\nand the command prints\n    %s",
		strings.Join(want, "\n    "), strings.Join(got, "\n    "))
}

func matches(want, got []string) bool {
	switch {
	case len(want) == 0:
		return len(got) == 0
	case strings.TrimSpace(want[0]) == "…":
		return matches(want[1:], got) || len(got) > 0 && matches(want, got[1:])
	}
	return len(got) > 0 && fits(want[0], got[0]) && matches(want[1:], got[1:])
}

// fits reports whether two lines are equal if an ellipsis of either is any text of the other: tables shorten cells to
// fit their width.
func fits(shown, output string) bool {
	if rest, ok := strings.CutSuffix(shown, " …"); ok {
		shown = rest + "…" // which can be nothing
	}
	a, b := []rune(shown), []rune(output)
	// equal[i][j] is whether a[i:] fits b[j:].
	equal := make([][]bool, len(a)+1)
	for i := len(a); i >= 0; i-- {
		equal[i] = make([]bool, len(b)+1)
		for j := len(b); j >= 0; j-- {
			anyA, anyB := i < len(a) && a[i] == '…', j < len(b) && b[j] == '…'
			switch {
			case i == len(a) && j == len(b):
				equal[i][j] = true
			case anyA && (equal[i+1][j] || j < len(b) && equal[i][j+1]),
				anyB && (equal[i][j+1] || i < len(a) && equal[i+1][j]):
				equal[i][j] = true
			case i < len(a) && j < len(b) && a[i] == b[j]:
				equal[i][j] = equal[i+1][j+1]
			}
		}
	}
	return equal[0][0]
}
