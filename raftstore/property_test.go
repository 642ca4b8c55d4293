package raftstore_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/types/known/wrapperspb"
	"pgregory.net/rapid"

	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

// plan is one random transaction: rows that it reads, a prefix that it lists, a row that it writes and one that it
// deletes.
type plan struct {
	reads  []int
	list   int // -1: none
	write  int
	remove int // -1: none
}

// seen is what a committed transaction read and did.
type seen struct {
	plan
	read     map[string]string
	listed   map[string]string
	began    raftstore.Revision // the newest revision that was returned to anybody before it began
	revision raftstore.Revision
	value    string
}

// TestTransactionsAreStrictlySerializable runs random concurrent transactions, and then one after the other against a
// map, in the order of their revisions: each must have read what the map holds then. Transactions of the same revision
// shared an entry; none of them reads what another one of it writes.
func TestTransactionsAreStrictlySerializable(t *testing.T) {
	s := raftstoretest.New(t)
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		plans := rapid.SliceOfN(rapid.SliceOfN(genPlan, 1, 12), 2, 6).Draw(rt, "plans")
		all := run(rt, s, fmt.Sprintf("p%d/", round), plans)
		check(rt, all, stored(rt, s, fmt.Sprintf("p%d/", round)))
	})
}

var genPlan = rapid.Custom(func(t *rapid.T) plan {
	row := rapid.IntRange(0, 7)
	return plan{
		reads: rapid.SliceOfNDistinct(row, 0, 3, rapid.ID[int]).Draw(t, "reads"),
		list:  rapid.IntRange(-1, 1).Draw(t, "list"),
		write: row.Draw(t, "write"), remove: rapid.IntRange(-1, 7).Draw(t, "remove"),
	}
})

// rowKey puts rows below two prefixes, "0" and "1".
func rowKey(row int) string { return fmt.Sprintf("%d/%d", row%2, row) }

func run(t *rapid.T, s *raftstore.Store, base string, plans [][]plan) []seen {
	var (
		mu    sync.Mutex
		all   []seen
		group sync.WaitGroup
		last  atomic.Uint64
	)
	for w, own := range plans {
		group.Go(func() {
			for i, p := range own {
				r := seen{plan: p, value: fmt.Sprintf("%d.%d", w, i), began: raftstore.Revision(last.Load())}
				var err error
				r.revision, err = s.Update(t.Context(), func(tx *raftstore.Tx) error { return r.do(tx, base) })
				mu.Lock()
				if err != nil {
					t.Errorf("%v", err)
				}
				all = append(all, r)
				mu.Unlock()
				for returned := uint64(r.revision); ; {
					now := last.Load()
					if now >= returned || last.CompareAndSwap(now, returned) {
						break
					}
				}
			}
		})
	}
	group.Wait()
	return all
}

func (r *seen) do(tx *raftstore.Tx, base string) error {
	r.read, r.listed = map[string]string{}, nil
	// The row that is written is read too, so that the order of writers is known.
	for _, row := range append(slices.Clone(r.reads), r.write) {
		got, _, err := words.Get(tx, base+rowKey(row))
		if err != nil {
			return err
		}
		r.read[rowKey(row)] = got.Value.GetValue()
	}
	if r.remove >= 0 {
		got, _, err := words.Get(tx, base+rowKey(r.remove))
		if err != nil {
			return err
		}
		r.read[rowKey(r.remove)] = got.Value.GetValue()
		if err := words.Delete(tx, base+rowKey(r.remove)); err != nil {
			return err
		}
	}
	if r.list >= 0 {
		r.listed = map[string]string{}
		for row, err := range words.All(tx, fmt.Sprintf("%s%d/", base, r.list)) {
			if err != nil {
				return err
			}
			r.listed[strings.TrimPrefix(row.Key, base)] = row.Value.GetValue()
		}
	}
	return words.Put(tx, base+rowKey(r.write), wrapperspb.String(r.value))
}

func stored(t *rapid.T, s *raftstore.Store, base string) map[string]string {
	rows := map[string]string{}
	for row, err := range words.All(s.View(), base) {
		if err != nil {
			t.Fatal(err)
		}
		rows[strings.TrimPrefix(row.Key, base)] = row.Value.GetValue()
	}
	return rows
}

func check(t *rapid.T, all []seen, final map[string]string) {
	slices.SortFunc(all, func(a, b seen) int { return int(a.revision) - int(b.revision) })
	model := map[string]string{}
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n].revision == all[0].revision {
			n++
		}
		after := maps.Clone(model)
		for _, r := range all[:n] {
			if r.revision <= r.began {
				t.Fatalf(
					"transaction %s began after revision %d was returned, and committed at %d",
					r.value,
					r.began,
					r.revision,
				)
			}
			for key, got := range r.read {
				if got != model[key] {
					t.Fatalf("transaction %s at %d read %s=%q, want %q", r.value, r.revision, key, got, model[key])
				}
			}
			r.checkListed(t, model)
			r.applyTo(after)
		}
		model, all = after, all[n:]
	}
	if !maps.Equal(model, final) {
		t.Fatalf("the store holds %v, want %v", final, model)
	}
}

func (r *seen) applyTo(model map[string]string) {
	// Deleting what was absent writes nothing, and may share an entry with the transaction that adds it.
	if r.remove >= 0 && r.read[rowKey(r.remove)] != "" {
		delete(model, rowKey(r.remove))
	}
	model[rowKey(r.write)] = r.value
}

// checkListed compares what a transaction listed, which was after its own deletion.
func (r *seen) checkListed(t *rapid.T, model map[string]string) {
	if r.list < 0 {
		return
	}
	want := map[string]string{}
	for key, value := range model {
		if strings.HasPrefix(key, fmt.Sprintf("%d/", r.list)) && (r.remove < 0 || key != rowKey(r.remove)) {
			want[key] = value
		}
	}
	if !maps.Equal(want, r.listed) {
		t.Fatalf("transaction %s at %d listed %v, want %v", r.value, r.revision, r.listed, want)
	}
}
