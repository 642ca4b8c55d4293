package recovery

import (
	"fmt"
	"time"
)

const (
	// sequenceLeap is added to the highest sequence that is known. The lost members may have published more, but no
	// bundle changes a million times in between.
	sequenceLeap = 1 << 20
	// maxSequence is the largest sequence that every reader of JSON has exactly.
	maxSequence = 1<<53 - 1
	// clockTolerance is how far the clock may be before a time that another member has written: clocks that differ by
	// more stop a member from signing.
	clockTolerance = 5 * time.Minute
	// longestAway is how long after its last sign of life a member can be recovered by its clock alone.
	longestAway = 366 * 24 * time.Hour
)

// Sequences are the highest sequences of hosted bundles that are known of.
type Sequences struct {
	// OnDisk is that of the member itself, and Seen the highest one that a peer has reported to have.
	OnDisk, Seen uint64
	// Peer is the home trust domain of that peer.
	Peer string
}

// Floor returns what the sequences of hosted bundles continue from: above the highest ones that are known, and above
// the present time in milliseconds, which is above every sequence that the cluster can have counted up to. given takes
// the place of the time, if it is not 0. alive are times at which the member was alive.
func Floor(known Sequences, given uint64, now time.Time, alive ...time.Time) (uint64, error) {
	if given != 0 {
		switch {
		case given <= known.OnDisk:
			return 0, fmt.Errorf("--sequence-floor %d is not above %d, the highest sequence on this disk: sequences "+
				"never fall", given, known.OnDisk)
		case given <= known.Seen:
			return 0, fmt.Errorf("--sequence-floor %d is not above %d, which the peer %s has: it would refuse the "+
				"bundles of this cluster as a rollback", given, known.Seen, known.Peer)
		}
		return bounded(given)
	}
	var last time.Time
	for _, at := range alive {
		if at.After(last) {
			last = at
		}
	}
	const remedy = "correct the clock, or give --sequence-floor with a number above every sequence that a peer has " +
		"seen (`entente federation show DOMAIN` there)"
	at := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	switch {
	case last.IsZero():
		return 0, fmt.Errorf("nothing on this disk tells whether the clock, %s, is right: %s", at(now), remedy)
	case now.Before(last.Add(-clockTolerance)):
		return 0, fmt.Errorf("the clock, %s, is before the last sign of life of this member, %s: %s", at(now), at(last),
			remedy)
	case now.After(last.Add(longestAway)):
		return 0, fmt.Errorf("the clock, %s, is more than a year after the last sign of life of this member, %s: %s",
			at(now), at(last), remedy)
	}
	ms := uint64(now.UnixMilli()) //nolint:gosec // after 1970, or refused above
	return bounded(max(known.OnDisk, known.Seen, ms) + sequenceLeap)
}

func bounded(floor uint64) (uint64, error) {
	if floor > maxSequence {
		return 0, fmt.Errorf("the sequence %d is above %d, the largest that every reader of a bundle has exactly",
			floor, uint64(maxSequence))
	}
	return floor, nil
}
