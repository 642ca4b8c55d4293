package memory_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/raftstore/membership/memory"
)

type (
	report  = memory.Report[string, int]
	section = memory.Section[string, int]
	config  = memory.Config[string, int]
)

// withJSON completes a configuration with a codec that transports everything.
func withJSON(c config) config {
	c.Name = "test"
	c.Encode = func(r report) ([]byte, error) { return json.Marshal(r) }
	c.Decode = func(_ string, raw []byte) (r report, err error) {
		err = json.Unmarshal(raw, &r)
		return r, err
	}
	c.Now = func() time.Time { return time.Unix(1000, 0) }
	return c
}

// collected returns the keys and values of the next report, in order.
func collected(t *testing.T, s *section, full bool) []string {
	t.Helper()
	raw := s.Collect(full)
	if raw == nil {
		return nil
	}
	var r report
	require.NoError(t, json.Unmarshal(raw, &r))
	var out []string
	for _, e := range r.Entries {
		out = append(out, fmt.Sprint(e.Key, "=", e.Value))
	}
	slices.Sort(out)
	if r.Full {
		out = append(out, "full")
	}
	return out
}

func TestCollectSendsWhatChanged(t *testing.T) {
	s := memory.New(withJSON(config{Once: func(_ string, v int) bool { return v < 0 }}))
	require.Nil(t, s.Collect(false))
	s.Own.Set("a", 1)
	s.Own.Set("b", 2)
	s.Own.Set("c", -3)
	s.Own.Update("b", func(v *int) bool { *v += 10; return true })
	require.Equal(t, []string{"a=1", "b=12", "c=-3"}, collected(t, s, false))
	require.Nil(t, s.Collect(false), "all of it was sent")

	s.Own.Update("a", func(v *int) bool { *v = 100; return false })
	require.Nil(t, s.Collect(false), "a change that its function takes back is none")
	s.Own.Set("b", 3)
	require.Equal(t, []string{"b=3"}, collected(t, s, false))
	require.Equal(t, []string{"a=1", "b=3", "full"}, collected(t, s, true), "what is sent once is gone")

	s.Own.Set("a", 2)
	s.Own.Delete("a")
	s.Own.Set("d", 4)
	s.Own.DeleteFunc(func(key string, v int) bool { return key == "d" && v == 4 })
	require.Nil(t, s.Collect(false), "what was deleted is not sent")
	_, ok := s.Own.Get("a")
	require.False(t, ok)
	b, ok := s.Own.Get("b")
	require.True(t, ok)
	require.Equal(t, 3, b)
}

func TestCollectInParts(t *testing.T) {
	s := memory.New(withJSON(config{MaxReport: 4, Cost: func(_ string, v int) int { return v }}))
	for i, cost := range []int{2, 2, 2, 2, 9} {
		s.Own.Set(fmt.Sprint(i), cost)
	}
	sent := map[string]bool{}
	reports := 0
	for full := true; ; full = false {
		part := collected(t, s, full)
		reports++
		cost := 0
		for _, entry := range part {
			if entry == "full" {
				require.Len(t, sent, 5, "the mark comes with the last part")
				require.Nil(t, s.Collect(false))
				require.GreaterOrEqual(t, reports, 3)
				return
			}
			sent[entry] = true
			var value int
			_, err := fmt.Sscanf(entry[2:], "%d", &value)
			require.NoError(t, err)
			cost += value
		}
		require.True(t, cost <= 4 || len(part) == 1, "a report of %v", part)
	}
}

func TestDeliverMerges(t *testing.T) {
	var refused []string
	greatest := func(was int, known bool, is int) (int, bool) {
		if !known {
			return is, true
		}
		return max(was, is), is != 0
	}
	s := memory.New(withJSON(config{
		Merge: greatest, MaxReceived: 2,
		Refused: func(member string, err error) { refused = append(refused, member+": "+err.Error()) },
	}))
	deliver := func(member, text string) { s.Deliver(member, []byte(text)) }
	deliver("m1", `{"Entries":[{"Key":"a","Value":3},{"Key":"b","Value":1}]}`)
	deliver("m2", `{"Entries":[{"Key":"a","Value":2},{"Key":"c","Value":1}]}`)
	require.Equal(t, map[string]int{"a": 3, "b": 1}, s.Received.All(), "there is no room for c")
	deliver("m2", `{"Entries":[{"Key":"b","Value":0},{"Key":"c","Value":1}]}`)
	require.Equal(t, map[string]int{"a": 3, "c": 1}, s.Received.All())
	deliver("m2", `[]`)
	require.Equal(t, map[string]int{"a": 3, "c": 1}, s.Received.All())
	require.Len(t, refused, 1)
	require.Contains(t, refused[0], "m2: decode the report of section test: ")
	require.Equal(t, []string{"m1", "m2"}, s.Received.Members())

	s.Received.Delete("a")
	s.Received.Set("d", 4)
	s.Received.DeleteFunc(func(key string, _ int) bool { return key == "c" })
	require.Equal(t, map[string]int{"d": 4}, s.Received.All())
	d, ok := s.Received.Get("d")
	require.True(t, ok)
	require.Equal(t, 4, d)
}

func TestVersionsFollowChanges(t *testing.T) {
	s := memory.New(withJSON(config{}))
	for _, key := range []string{"a", "b", "c"} {
		s.Received.Set(key, 1)
	}
	s.Received.Set("a", 2)
	s.Received.Change(func(key string, v int) (int, bool) { return v + 10, key == "b" })
	var order []string
	for _, v := range s.Received.Since(0) {
		order = append(order, fmt.Sprint(v.Version, v.Key, v.Value))
	}
	require.Equal(t, []string{"3c1", "4a2", "5b11"}, order)
	require.Len(t, s.Received.Since(3), 2)
	require.Empty(t, s.Received.Since(5))
	require.EqualValues(t, 5, s.Received.Leadership().Version)
}

func TestLeadBeginsEmpty(t *testing.T) {
	resets := 0
	s := memory.New(withJSON(config{Reset: func() { resets++ }}))
	require.Zero(t, s.Received.Leadership())
	s.Own.Set("a", 1)
	s.Deliver("m1", s.Collect(true))
	require.True(t, s.Received.Complete([]string{"m1"}))
	s.Reset()
	require.Equal(t, 1, resets)
	first := s.Received.Leadership()
	require.NotZero(t, first.ID)
	require.Equal(t, time.Unix(1000, 0), first.Since)
	require.Zero(t, first.Version)
	require.Empty(t, s.Received.All())
	require.Empty(t, s.Received.Members())
	require.False(t, s.Received.Complete([]string{"m1"}))
	s.Deliver("m1", s.Collect(true))
	require.Equal(t, map[string]int{"a": 1}, s.Received.All(), "a member's own values outlive a change of leader")
	s.Reset()
	require.NotEqual(t, first.ID, s.Received.Leadership().ID)
}

func TestMemberThatRestartsReportsAgain(t *testing.T) {
	var restarts []string
	leader := memory.New(withJSON(config{Restarted: func(member string) { restarts = append(restarts, member) }}))
	first, second := memory.New(withJSON(config{})), memory.New(withJSON(config{}))
	leader.Deliver("m1", first.Collect(true))
	require.True(t, leader.Received.Complete([]string{"m1"}))
	require.False(t, leader.Received.Complete([]string{"m1", "m2"}))
	first.Own.Set("a", 1)
	leader.Deliver("m1", first.Collect(false))
	require.Empty(t, restarts)
	require.True(t, leader.Received.Complete([]string{"m1"}))

	second.Own.Set("b", 1)
	leader.Deliver("m1", second.Collect(false))
	require.Equal(t, []string{"m1"}, restarts)
	require.False(t, leader.Received.Complete([]string{"m1"}))
	require.Equal(t, []string{"a", "b"}, slices.Sorted(maps.Keys(leader.Received.All())), "what it reported stays")
	leader.Deliver("m1", second.Collect(true))
	require.True(t, leader.Received.Complete([]string{"m1"}))
}

func TestAnswer(t *testing.T) {
	_, err := memory.New(withJSON(config{})).Answer(nil)
	require.EqualError(t, err, "section test does not answer queries")
	s := memory.New(withJSON(config{Answer: func(query []byte) ([]byte, error) { return append(query, '!'), nil }}))
	answer, err := s.Answer([]byte("a"))
	require.NoError(t, err)
	require.Equal(t, "a!", string(answer))
}

func TestReportThatCannotBeEncoded(t *testing.T) {
	broken := errors.New("broken")
	var refused error
	c := withJSON(config{Refused: func(member string, err error) {
		require.Empty(t, member)
		refused = err
	}})
	c.Encode = func(report) ([]byte, error) { return nil, broken }
	s := memory.New(c)
	s.Own.Set("a", 1)
	require.Nil(t, s.Collect(false))
	require.EqualError(t, refused, "encode the report of section test: broken")

	c.Encode = func(report) ([]byte, error) { return nil, nil }
	require.Nil(t, memory.New(c).Collect(true), "a codec may find that nothing is worth sending")
}
