package chaos

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func span(call, answer int) Span {
	return Span{time.Duration(call) * time.Second, time.Duration(answer) * time.Second}
}

func TestCheckSeen(t *testing.T) {
	for name, c := range map[string]struct {
		seen []Seen
		want []string
	}{
		"it rises": {
			seen: []Seen{
				{span(0, 1), "a", "bundle", 5}, {span(2, 3), "a", "bundle", 5}, {span(4, 5), "a", "bundle", 6},
			},
		},
		"it falls": {
			seen: []Seen{{span(0, 1), "a", "bundle", 9}, {span(2, 3), "a", "bundle", 5}},
			want: []string{"a answered bundle 5 at 2s, after 9 at 1s"},
		},
		"it falls to zero": {
			seen: []Seen{{span(0, 1), "a", "bundle", 9}, {span(2, 3), "a", "bundle", 0}},
			want: []string{"a answered bundle 0 at 2s, after 9 at 1s"},
		},
		"both at once":   {seen: []Seen{{span(0, 4), "a", "bundle", 9}, {span(2, 3), "a", "bundle", 5}}},
		"another member": {seen: []Seen{{span(0, 1), "a", "bundle", 9}, {span(2, 3), "b", "bundle", 5}}},
		"another number": {seen: []Seen{{span(0, 1), "a", "bundle", 9}, {span(2, 3), "a", "hint", 5}}},
		"recorded out of order": {
			seen: []Seen{{span(4, 5), "a", "bundle", 5}, {span(0, 1), "a", "bundle", 6}},
			want: []string{"a answered bundle 5 at 4s, after 6 at 1s"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := History{Seen: c.seen}
			require.Equal(t, c.want, h.CheckSeen())
		})
	}
}

func TestCheckReady(t *testing.T) {
	refused := []Asked{{span(4, 6), "a", "starting"}}
	for name, c := range map[string]struct {
		h    *History
		want []string
	}{
		"it answered": {h: &History{Asked: []Asked{{span(4, 6), "a", ""}}}},
		"it refused": {
			h:    &History{Asked: refused},
			want: []string{"a was ready at 4s and 6s, and refused: starting"},
		},
		"it was started meanwhile": {h: &History{Asked: refused, Lives: []Life{{5 * time.Second, "a"}}}},
		"another was": {
			h:    &History{Asked: refused, Lives: []Life{{5 * time.Second, "b"}}},
			want: []string{"a was ready at 4s and 6s, and refused: starting"},
		},
		"it was started before": {
			h:    &History{Asked: refused, Lives: []Life{{3 * time.Second, "a"}}},
			want: []string{"a was ready at 4s and 6s, and refused: starting"},
		},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want, c.h.CheckReady()) })
	}
}

func TestCheckIssued(t *testing.T) {
	h := History{Issued: []Issued{{"a", "x", "1"}, {"a", "x", "2"}, {"b", "y", "1"}}}
	require.Empty(t, h.CheckIssued())
	h.Add(Issued{"b", "x", "2"})
	require.Equal(t, []string{"authority x gave serial 2 twice, through a and b"}, h.CheckIssued())
}

func TestCheckWrites(t *testing.T) {
	written := []Write{{span(1, 2), "r1", true}, {span(3, 4), "r2", false}}
	rows := func(names ...string) map[string]map[string]bool {
		out := map[string]bool{}
		for _, n := range names {
			out[n] = true
		}
		return map[string]map[string]bool{"a": out}
	}
	for name, c := range map[string]struct {
		found    map[string]map[string]bool
		restored []Restored
		want     []string
	}{
		"all are there":                    {found: rows("r1", "r2")},
		"what was not acknowledged is not": {found: rows("r1")},
		"what was acknowledged is not": {
			found: rows("r2"),
			want:  []string{"a lost row r1, whose write was acknowledged at 2s"},
		},
		"a restore took it": {found: rows(), restored: []Restored{{span(0, 5)}}},
		"a restore that came later": {
			found:    rows(),
			restored: []Restored{{span(3, 5)}},
			want:     []string{"a lost row r1, whose write was acknowledged at 2s"},
		},
		"nobody wrote it": {
			found: rows("r1", "r3"),
			want:  []string{"a has row r3, which nobody wrote"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := History{Writes: written, Restored: c.restored}
			require.Equal(t, c.want, h.CheckWrites(c.found))
		})
	}
	require.Equal(t, 1, (&History{Writes: written}).Acknowledged())
}

func TestCheckSame(t *testing.T) {
	require.Empty(t, CheckSame(map[string]string{"a": "x", "b": "x", "c": "x"}))
	require.Equal(t, []string{`c differs from a: "xz" instead of "xy"`},
		CheckSame(map[string]string{"a": "xy", "b": "xy", "c": "xz"}))
	require.Equal(t, []string{`b differs from a: "" instead of "x"`}, CheckSame(map[string]string{"a": "x", "b": ""}))
}

func TestCheckWriteReadiness(t *testing.T) {
	row := func(ready bool, refusal string, at ...int) (out []Health) {
		for _, s := range at {
			out = append(out, Health{span(s, s), "a", ready, refusal})
		}
		return out
	}
	for name, c := range map[string]struct {
		health []Health
		lives  []Life
		want   []string
	}{
		"it writes":              {health: row(true, "", 1, 2, 9)},
		"it says that it cannot": {health: row(false, "full", 1, 2, 9)},
		"it notices in time":     {health: append(row(true, "full", 1, 2), row(false, "full", 3, 9)...)},
		"it does not notice": {
			health: row(true, "full", 1, 2, 4),
			want:   []string{"a was ready to write at 4s, and refused since 1s: full"},
		},
		"some writes are made between": {health: append(row(true, "full", 1, 4), row(true, "", 2)...)},
		"it was paused meanwhile":      {health: row(true, "full", 1, 4), lives: []Life{{2 * time.Second, "a"}}},
	} {
		t.Run(name, func(t *testing.T) {
			h := History{Health: c.health, Lives: c.lives}
			require.Equal(t, c.want, h.CheckWriteReadiness(2*time.Second))
		})
	}
}

func TestCheckTransactions(t *testing.T) {
	put := func(s Span, client int, value string) Transaction {
		return Transaction{Span: s, Client: client, Table: "t", Action: Put, Row: "r", Value: value}
	}
	list := func(s Span, client int, rows map[string]string) Transaction {
		return Transaction{Span: s, Client: client, Table: "t", Action: List, Rows: rows}
	}
	unknown := func(t Transaction) Transaction { t.Unknown = true; return t }
	of := func(value string) map[string]string { return map[string]string{"r": value} }
	remove := func(s Span, existed bool) Transaction {
		return Transaction{Span: s, Client: 3, Table: "t", Action: Delete, Row: "r", Existed: existed}
	}
	for name, c := range map[string]struct {
		done     []Transaction
		restored []Restored
		checked  int
		want     string
	}{
		"one after the other": {done: []Transaction{put(span(0, 1), 0, "1"), list(span(2, 3), 1, of("1"))}, checked: 2},
		"a stale read": {
			done: []Transaction{put(span(0, 1), 0, "1"), put(span(2, 3), 0, "2"), list(span(4, 5), 1, of("1"))},
			want: "no order explains the 3 transactions on table t: ",
		},
		"a read of two writes at once": {
			done: []Transaction{
				put(span(0, 9), 0, "1"), put(span(0, 9), 1, "2"),
				list(span(4, 5), 2, of("1")), list(span(6, 7), 2, of("2")),
			},
			checked: 4,
		},
		"reads that disagree about the order": {
			done: []Transaction{
				put(span(0, 1), 0, "0"), put(span(2, 3), 0, "1"), put(span(2, 3), 1, "2"),
				list(span(4, 5), 2, of("1")), list(span(6, 7), 2, of("2")),
			},
			want: "no order explains the 5 transactions on table t: ",
		},
		"an unknown write that is made later": {
			done: []Transaction{
				put(span(0, 1), 0, "1"), unknown(put(span(2, 3), 0, "2")),
				list(span(4, 5), 1, of("1")), list(span(6, 7), 1, of("2")),
			},
			checked: 4,
		},
		"a write that failed and was made": {
			done: []Transaction{put(span(0, 1), 0, "1"), list(span(4, 5), 1, of("2"))},
			want: "no order explains the 2 transactions on table t: ",
		},
		"a delete of what is there": {
			done:    []Transaction{put(span(0, 1), 0, "1"), remove(span(2, 3), true), list(span(4, 5), 1, nil)},
			checked: 3,
		},
		"a delete that found nothing": {
			done: []Transaction{put(span(0, 1), 0, "1"), remove(span(2, 3), false)},
			want: "no order explains the 2 transactions on table t: ",
		},
		"an unknown delete": {done: []Transaction{unknown(remove(span(2, 3), true))}, checked: 1},
		"an unknown list":   {done: []Transaction{unknown(list(span(2, 3), 1, of("9")))}},
		"a restore": {
			done:     []Transaction{put(span(0, 1), 0, "1"), put(span(4, 5), 0, "2"), list(span(6, 7), 1, of("1"))},
			restored: []Restored{{span(2, 6)}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := History{Transactions: c.done, Restored: c.restored}
			wrong, checked := h.CheckTransactions(time.Minute)
			require.Equal(t, c.checked, checked)
			if c.want == "" {
				require.Empty(t, wrong)
				return
			}
			require.Len(t, wrong, 1)
			require.Contains(t, wrong[0], c.want)
		})
	}
}
