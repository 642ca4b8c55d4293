package chaos

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Kind is a kind of fault.
type Kind string

// The faults that need no rights: processes and the files of stopped members.
const (
	Kill     Kind = "kill"     // one member, as a power cut would
	KillAll  Kind = "kill-all" // all members at once
	Pause    Kind = "pause"    // SIGSTOP
	Roll     Kind = "roll"     // stops and starts one member after the other, in order
	Transfer Kind = "transfer" // hands the lead over
	Flip     Kind = "flip"     // flips one bit of a stopped member's files
	Cut      Kind = "cut"      // truncates one of a stopped member's files
	Restore  Kind = "restore"  // restores a snapshot, and kills the leader meanwhile
	Lose     Kind = "lose"     // loses the disks of all members but one, which is recovered to a cluster of one
)

// The faults of networks, which need network namespaces.
const (
	Isolate Kind = "isolate" // one member from all others
	Deaf    Kind = "deaf"    // one member does not receive what the others send
	Mute    Kind = "mute"    // the others do not receive what one member sends
	Flap    Kind = "flap"    // the link of one member goes and comes every second
	Loss30  Kind = "loss-30" // every packet between members is lost with a probability of 30 percent
	Loss50  Kind = "loss-50"
)

// The faults of disks, which need a file system of their own.
const (
	Full     Kind = "full"      // no room
	ReadOnly Kind = "eio-write" // each write and each fsync returns EIO
	BadSync  Kind = "eio-sync"  // each fsync returns EIO
	SlowSync Kind = "slow-sync" // each fsync takes a second
	HungSync Kind = "hung-sync" // an fsync does not return before the fault ends
)

// The faults of clocks, which need a build whose clock can be shifted.
const (
	Ahead  Kind = "clock-ahead"  // one member's clock goes forward by 20 minutes to a day
	Behind Kind = "clock-behind" // and back
)

// The kinds, by what they need.
var (
	Plain    = []Kind{Kill, KillAll, Pause, Roll, Transfer, Flip, Cut, Restore, Lose}
	Networks = []Kind{Isolate, Deaf, Mute, Flap, Loss30, Loss50}
	Disks    = []Kind{Full, ReadOnly, BadSync, SlowSync, HungSync}
	Clocks   = []Kind{Ahead, Behind}
)

// Fault is one fault of one member.
type Fault struct {
	Kind Kind
	// Member is the target, counted from 0. With Leader it is whichever leads when the step begins.
	Member int
	Leader bool
	// Seed decides what is left, such as the bit that flips.
	Seed uint64
}

// String describes the fault.
func (f Fault) String() string {
	target := fmt.Sprintf("member %d", f.Member+1)
	if f.Leader {
		target = "the leader"
	}
	return fmt.Sprintf("%s of %s (seed %d)", f.Kind, target, f.Seed)
}

// Step is one fault, or two that overlap: the second begins while the first lasts, and the first ends before it. A step
// begins when the cluster has come through the one before it.
type Step struct {
	Number int
	Faults []Fault
	// Lasts is the time from the last fault to the first end of one.
	Lasts time.Duration
}

// String describes the step on one line.
func (s Step) String() string {
	var faults []string
	for _, f := range s.Faults {
		faults = append(faults, f.String())
	}
	return fmt.Sprintf("step %d: %s for %s", s.Number, strings.Join(faults, " and "), s.Lasts)
}

// Steps is the schedule of a seed: an endless sequence, in which every kind comes once by itself before any comes
// again, and after every second fault come two that overlap.
func Steps(seed uint64, kinds []Kind, members int) iter.Seq[Step] {
	return func(yield func(Step) bool) {
		random := rand.New(rand.NewPCG(seed, 0xc4a05))
		pairs := overlapping(kinds)
		number := 0
		next := func(kinds ...Kind) bool {
			number++
			step := Step{Number: number, Lasts: time.Duration(1+random.IntN(6)) * time.Second}
			var longest time.Duration
			for _, kind := range kinds {
				longest = max(longest, least(kind))
				step.Faults = append(step.Faults, Fault{
					Kind: kind, Member: random.IntN(members), Leader: random.IntN(2) == 0,
					Seed: random.Uint64N(1_000_000),
				})
			}
			step.Lasts += longest
			return yield(step)
		}
		for {
			round := slices.Clone(kinds)
			random.Shuffle(len(round), func(i, j int) { round[i], round[j] = round[j], round[i] })
			for i, kind := range round {
				if !next(kind) {
					return
				}
				if i%2 == 1 && len(pairs) > 0 {
					pair := pairs[random.IntN(len(pairs))]
					if !next(pair[0], pair[1]) {
						return
					}
				}
			}
		}
	}
}

// overlapping returns the pairs of kinds that may overlap, in order.
func overlapping(kinds []Kind) (pairs [][2]Kind) {
	for _, first := range kinds {
		for _, second := range kinds {
			if Overlap(first, second) {
				pairs = append(pairs, [2]Kind{first, second})
			}
		}
	}
	return pairs
}

// Overlap reports whether a fault may begin while another one lasts.
func Overlap(first, second Kind) bool {
	lasting := slices.Concat([]Kind{Kill, Pause, Isolate, Deaf, Mute, Loss30, Loss50}, Disks, Clocks)
	switch {
	case !slices.Contains(lasting, first):
		return false
	case second == Lose:
		return false // it takes the majority away, and needs the disk and the clock of the last member
	case second == Roll:
		return first == SlowSync // it waits for each member, and with a wrong clock or a bad disk none becomes ready
	case second == Flip, second == Cut:
		// A damaged member is repaired by a majority, to which the other two have to belong.
		return slices.Contains([]Kind{SlowSync, Ahead, Behind}, first)
	case slices.Contains(Networks, first) && slices.Contains(Networks, second):
		return false // both would set the same rules
	case first == HungSync:
		// A process that waits for such a disk cannot be killed before the disk answers.
		return !slices.Contains([]Kind{Kill, KillAll, Restore}, second)
	}
	return true
}

// SameNature reports whether two kinds act on the same part of a member, so that two members must be their targets.
func SameNature(a, b Kind) bool {
	for _, nature := range [][]Kind{Plain, Networks, Disks, Clocks} {
		if slices.Contains(nature, a) {
			return slices.Contains(nature, b)
		}
	}
	return false
}

// Apart reports whether two faults of a step must be of two members.
func Apart(first, second Kind) bool {
	return SameNature(first, second) || second == Flip || second == Cut
}

// least is what a fault lasts at least: those of which a member notices only over time.
func least(k Kind) time.Duration {
	switch k {
	case SlowSync:
		return 20 * time.Second // a leader with a slow disk hands over after ten
	case HungSync:
		return 12 * time.Second // a member with a hung disk ends after ten
	case Full:
		return 4 * time.Second // a full one says so within two
	default:
		return 0
	}
}
