package chaos

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// Action is what a transaction does with a table of rows.
type Action int

const (
	// Put creates or replaces a row.
	Put Action = iota
	// Delete deletes a row, and reports whether there was one.
	Delete
	// List reads the table.
	List
)

// Transaction is one call on a small table, and its outcome.
type Transaction struct {
	Span
	Client     int
	Table      string
	Action     Action
	Row, Value string            // of Put; Row of Delete
	Unknown    bool              // it may have been made, or may be made later
	Existed    bool              // of Delete
	Rows       map[string]string // of List
}

// forever is when a transaction returns whose outcome is not known.
const forever = 1000 * time.Hour

// tableModel is the sequential model of one table. A state is its rows in order, as text.
var tableModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		tables := map[string][]porcupine.Operation{}
		for _, o := range history {
			name := o.Input.(Transaction).Table
			tables[name] = append(tables[name], o)
		}
		return slices.Collect(maps.Values(tables))
	},
	Init: func() any { return "" },
	Step: func(state, input, _ any) (bool, any) {
		rows, t := parseRows(state.(string)), input.(Transaction)
		_, existed := rows[t.Row]
		switch t.Action {
		case Put:
			rows[t.Row] = t.Value
			return true, formatRows(rows)
		case Delete:
			delete(rows, t.Row)
			return t.Unknown || t.Existed == existed, formatRows(rows)
		default:
			return maps.Equal(rows, t.Rows), state
		}
	},
	DescribeOperation: func(input, _ any) string { return fmt.Sprintf("%+v", input) },
}

func parseRows(text string) map[string]string {
	rows := map[string]string{}
	for row := range strings.FieldsSeq(text) {
		name, value, _ := strings.Cut(row, "=")
		rows[name] = value
	}
	return rows
}

func formatRows(rows map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		fmt.Fprintf(&b, "%s=%s ", name, rows[name])
	}
	return b.String()
}

// CheckTransactions returns the tables for which no order of the transactions explains what the clients saw, and the
// number of transactions that it checked. Tables that a restore may have changed are left out. It spends at most limit
// on each table, and reports one that needs more.
func (h *History) CheckTransactions(limit time.Duration) (wrong []string, checked int) {
	tables := map[string][]porcupine.Operation{}
	skipped := map[string]bool{}
	for _, t := range h.Transactions {
		span := t.Span
		if t.Unknown {
			if t.Action == List {
				continue // nothing was seen
			}
			t.Return = forever
		}
		// What is on the way when a restore begins can be made after it.
		skipped[t.Table] = skipped[t.Table] || h.lost(span)
		tables[t.Table] = append(tables[t.Table], porcupine.Operation{
			ClientId: t.Client, Input: t, Call: int64(t.Call), Return: int64(t.Return),
		})
	}
	for _, name := range slices.Sorted(maps.Keys(tables)) {
		if skipped[name] {
			continue
		}
		switch porcupine.CheckOperationsTimeout(tableModel, tables[name], limit) {
		case porcupine.Illegal:
			wrong = append(
				wrong,
				fmt.Sprintf("no order explains the %d transactions on table %s: %s", len(tables[name]),
					name, describe(tables[name])),
			)
		case porcupine.Unknown:
			wrong = append(wrong, fmt.Sprintf("the %d transactions on table %s were not checked within %s",
				len(tables[name]), name, limit))
		case porcupine.Ok:
			checked += len(tables[name])
		}
	}
	return wrong, checked
}

// describe lists transactions by their beginning, for a person who looks for the fault.
func describe(operations []porcupine.Operation) string {
	slices.SortFunc(operations, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	var b strings.Builder
	for _, o := range operations {
		t := o.Input.(Transaction)
		fmt.Fprintf(&b, "\n  %s to %s, client %d: ", t.Call, t.Return, t.Client)
		switch t.Action {
		case Put:
			fmt.Fprintf(&b, "put %s=%s", t.Row, t.Value)
		case Delete:
			fmt.Fprintf(&b, "delete %s, which existed: %t", t.Row, t.Existed)
		default:
			fmt.Fprintf(&b, "list: %s", formatRows(t.Rows))
		}
		if t.Unknown {
			b.WriteString(", with an unknown outcome")
		}
	}
	return b.String()
}
