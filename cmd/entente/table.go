package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// table is what people read: columns below their names, or one resource as names with values.
type table struct {
	rows   [][]string
	header int    // how many of rows are column names: 0 or 1
	note   string // below
}

// columns names the columns of a list.
func (t *table) columns(names ...string) {
	t.rows, t.header = append(t.rows, names), 1
}

// row adds a row. An empty cell is shown as a dash.
func (t *table) row(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		if row[i] = printable(fmt.Sprint(c)); row[i] == "" {
			row[i] = "-"
		}
	}
	t.rows = append(t.rows, row)
}

// field adds a name with its value, unless that is empty.
func (t *table) field(name string, value any) {
	if fmt.Sprint(value) != "" {
		t.row(name+":", value)
	}
}

// otherwise is what is printed instead of a list without rows.
func (t *table) otherwise(format string, args ...any) {
	if len(t.rows) == t.header {
		t.rows, t.note = nil, fmt.Sprintf(format, args...)
	}
}

func (t *table) write(w io.Writer) error {
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
	if t.note != "" {
		if _, err := fmt.Fprintln(w, t.note); err != nil {
			return err
		}
	}
	return nil
}

// name is an enumeration's value as people write it: "https_spiffe" for ENDPOINT_PROFILE_HTTPS_SPIFFE; empty for none.
func name(e protoreflect.Enum) string {
	if e.Number() == 0 {
		return ""
	}
	return valueName(e.Descriptor(), e.Number())
}

func valueName(d protoreflect.EnumDescriptor, n protoreflect.EnumNumber) string {
	v := d.Values().ByNumber(n)
	if v == nil {
		return fmt.Sprint(n) // of a newer member
	}
	return strings.ToLower(strings.TrimPrefix(string(v.Name()), enumPrefix(d)))
}

// valueNamed is the number of the value that people write as s, and the names of all.
func valueNamed(d protoreflect.EnumDescriptor, s string) (n protoreflect.EnumNumber, known []string, ok bool) {
	for i := range d.Values().Len() {
		v := d.Values().Get(i)
		if v.Number() == 0 {
			continue
		}
		short := valueName(d, v.Number())
		known = append(known, short)
		if short == s {
			n, ok = v.Number(), true
		}
	}
	return n, known, ok
}

// enumPrefix is what protobuf style puts before each value, and the value zero shows.
func enumPrefix(d protoreflect.EnumDescriptor) string {
	return strings.TrimSuffix(string(d.Values().ByNumber(0).Name()), "UNSPECIFIED")
}

// since is a time in the past, as seen from now.
func since(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return ago(time.Since(t.AsTime()))
}

// ago words how long something has been, or will be.
func ago(d time.Duration) string {
	switch {
	case d <= -time.Second:
		return "in " + roughly(-d)
	case d < 0:
		return "now"
	case d < time.Second:
		return "just now"
	}
	return roughly(d) + " ago"
}

// roughly is a duration with the precision that people care for: 42s, 5m, 3h20m, 12d.
func roughly(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < day:
		if m := d % time.Hour / time.Minute; m > 0 {
			return fmt.Sprintf("%dh%dm", d/time.Hour, m)
		}
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/day)
}

// exact is a time with what it means from now.
func exact(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return fmt.Sprintf("%s (%s)", t.AsTime().UTC().Format(time.RFC3339), since(t))
}

// span is a duration as flags take it: 1h, 90s.
func span(d *durationpb.Duration) string {
	if d == nil {
		return ""
	}
	s := d.AsDuration().String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
