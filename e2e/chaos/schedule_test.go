package chaos

import (
	"iter"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func take(n int, steps iter.Seq[Step]) (out []Step) {
	for s := range steps {
		if len(out) == n {
			break
		}
		out = append(out, s)
	}
	return out
}

func TestStepsAreAFunctionOfTheSeed(t *testing.T) {
	kinds := slices.Concat(Plain, Networks, Disks, Clocks)
	first := take(100, Steps(7, kinds, 3))
	require.Equal(t, first, take(100, Steps(7, kinds, 3)))
	require.NotEqual(t, first, take(100, Steps(8, kinds, 3)))

	alone := map[Kind]bool{}
	targets := map[int]bool{}
	pairs := 0
	for i, s := range first {
		require.Equal(t, i+1, s.Number)
		require.LessOrEqual(t, time.Second, s.Lasts)
		var longest time.Duration
		for _, f := range s.Faults {
			longest = max(longest, least(f.Kind))
			targets[f.Member] = true
		}
		require.LessOrEqual(t, longest+time.Second, s.Lasts)
		require.LessOrEqual(t, s.Lasts, longest+6*time.Second)
		if len(s.Faults) == 2 {
			require.Equal(t, 2, i%3, "every third step has two faults")
			require.True(t, Overlap(s.Faults[0].Kind, s.Faults[1].Kind), s)
			pairs++
			continue
		}
		require.Len(t, s.Faults, 1)
		if kind := s.Faults[0].Kind; len(alone) < len(kinds) {
			require.False(t, alone[kind], "%s came twice before all others came once", kind)
			alone[kind] = true
		}
	}
	require.Len(t, alone, len(kinds))
	require.Equal(t, map[int]bool{0: true, 1: true, 2: true}, targets)
	require.NotZero(t, pairs)
}

// A long run comes to all pairs.
func TestAllPairsCome(t *testing.T) {
	kinds := slices.Concat(Plain, Networks, Disks, Clocks)
	left := map[[2]Kind]bool{}
	for _, pair := range overlapping(kinds) {
		left[pair] = true
	}
	for s := range Steps(1, kinds, 3) {
		if len(s.Faults) == 2 {
			delete(left, [2]Kind{s.Faults[0].Kind, s.Faults[1].Kind})
		}
		if len(left) == 0 || s.Number > 100_000 {
			break
		}
	}
	require.Empty(t, left)
}

func TestOverlap(t *testing.T) {
	for _, c := range []struct {
		first, second Kind
		want          bool
	}{
		{Kill, Kill, true},
		{Kill, Full, true},
		{Pause, Restore, true},
		{Isolate, Kill, true},
		{Full, Full, true},
		{Full, Kill, true},
		{HungSync, Pause, true},
		{Ahead, Behind, true},
		{Isolate, Loss30, false},   // one would end the other
		{Transfer, Kill, false},    // it does not last
		{Restore, Kill, false},     // it has ended when the second would begin
		{SlowSync, Roll, true},     // each member becomes ready, if slowly
		{SlowSync, Flip, true},     // the others can repair it
		{Ahead, Cut, true},         //
		{Kill, Roll, false},        // it waits for all members
		{Ahead, Roll, false},       // a member with a wrong clock does not become ready
		{Full, Flip, false},        // the member may have to be repaired by the others
		{Kill, Cut, false},         //
		{Flip, Kill, false},        // it has ended when the second would begin
		{SlowSync, Lose, false},    // it is a loss of the majority by itself
		{Pause, Lose, false},       // it needs the disk of one member
		{Lose, Kill, false},        //
		{HungSync, Kill, false},    // the process does not end
		{HungSync, KillAll, false}, //
		{HungSync, Restore, false}, // it kills the leader
	} {
		require.Equal(t, c.want, Overlap(c.first, c.second), "%s, then %s", c.first, c.second)
	}
	require.Empty(t, overlapping([]Kind{Roll, Flip, Cut, Lose, Transfer}))
}

func TestSameNature(t *testing.T) {
	for _, c := range []struct {
		a, b Kind
		want bool
	}{
		{Kill, Pause, true}, {Full, HungSync, true}, {Ahead, Behind, true}, {Isolate, Deaf, true},
		{Kill, Full, false}, {Isolate, Kill, false}, {Ahead, Full, false},
	} {
		require.Equal(t, c.want, SameNature(c.a, c.b), "%s and %s", c.a, c.b)
		require.Equal(t, c.want, SameNature(c.b, c.a), "%s and %s", c.b, c.a)
	}
}

// A member with damaged files is repaired by the two others, so the fault that it overlaps is of one that it is not.
func TestApart(t *testing.T) {
	for _, c := range []struct {
		first, second Kind
		want          bool
	}{
		{SlowSync, Flip, true}, {Ahead, Cut, true}, {Full, SlowSync, true},
		{SlowSync, Roll, false}, {Ahead, Kill, false},
	} {
		require.Equal(t, c.want, Apart(c.first, c.second), "%s, then %s", c.first, c.second)
	}
}

func TestStepDescribesItself(t *testing.T) {
	s := Step{Number: 3, Faults: []Fault{{Kind: Pause, Member: 1, Seed: 9}}, Lasts: 2 * time.Second}
	require.Equal(t, "step 3: pause of member 2 (seed 9) for 2s", s.String())
	s.Faults = append(s.Faults, Fault{Kind: Full, Leader: true, Seed: 7})
	require.Equal(t, "step 3: pause of member 2 (seed 9) and full of the leader (seed 7) for 2s", s.String())
}
