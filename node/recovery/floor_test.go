package recovery_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/node/recovery"
)

func TestFloor(t *testing.T) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	const leap = 1 << 20
	ms := uint64(now.UnixMilli())
	for name, test := range map[string]struct {
		onDisk, given uint64
		peer          uint64 // what a peer has
		seen          []time.Time
		want          uint64
		refusal       string
	}{
		"the time counts":                 {onDisk: 7, seen: []time.Time{now.Add(-time.Hour)}, want: ms + leap},
		"the disk counts, if it is above": {onDisk: ms + 1, seen: []time.Time{now}, want: ms + 1 + leap},
		"what a peer has seen counts, if it is above": {
			onDisk: 7, peer: ms + 5, seen: []time.Time{now}, want: ms + 5 + leap,
		},
		"what a peer has seen is below": {onDisk: 7, peer: 9, seen: []time.Time{now}, want: ms + leap},
		"a number is given that a peer has seen": {
			onDisk: 7, peer: 9, given: 9,
			refusal: "--sequence-floor 9 is not above 9, which the peer us.test has: it would refuse the bundles of " +
				"this cluster as a rollback",
		},
		"a number is given that no peer has seen": {onDisk: 7, peer: 9, given: 10, want: 10},
		"the later sign of life counts":           {seen: []time.Time{{}, now.Add(-time.Hour)}, want: ms + leap},
		"clocks differ by a little":               {seen: []time.Time{now.Add(5 * time.Minute)}, want: ms + leap},
		"a year without a sign of life":           {seen: []time.Time{now.AddDate(-1, 0, 0)}, want: ms + leap},
		"a number is given":                       {onDisk: 7, given: 8, want: 8},
		"a number is given, for a wrong clock": {onDisk: 7, given: 9, seen: []time.Time{now.AddDate(3, 0, 0)},
			want: 9},
		"a clock that is behind": {
			seen: []time.Time{now.Add(-time.Hour), now.Add(5*time.Minute + time.Second)},
			refusal: "the clock, 2026-11-29T12:00:00Z, is before the last sign of life of this member, " +
				"2026-11-29T12:05:01Z: correct the clock, or give --sequence-floor with a number above every " +
				"sequence that a peer has seen (`entente federation show DOMAIN` there)",
		},
		"a clock that is far ahead": {
			seen: []time.Time{now.AddDate(-1, 0, -2)},
			refusal: "the clock, 2026-11-29T12:00:00Z, is more than a year after the last sign of life of this " +
				"member, 2025-11-27T12:00:00Z: correct the clock",
		},
		"no sign of life": {
			seen:    []time.Time{{}, {}},
			refusal: "nothing on this disk tells whether the clock, 2026-11-29T12:00:00Z, is right: correct the clock",
		},
		"a number that is given is not above the disk's": {
			onDisk: 7, given: 7,
			refusal: "--sequence-floor 7 is not above 7, the highest sequence on this disk: sequences never fall",
		},
		"a number that is too large": {
			given:   1 << 53,
			refusal: "the sequence 9007199254740992 is above 9007199254740991, the largest that every reader",
		},
		"the disk's is too large": {
			onDisk: 1<<53 - 2, seen: []time.Time{now},
			refusal: "is above 9007199254740991, the largest that every reader of a bundle has exactly",
		},
	} {
		t.Run(name, func(t *testing.T) {
			known := recovery.Sequences{OnDisk: test.onDisk, Seen: test.peer, Peer: "us.test"}
			floor, err := recovery.Floor(known, test.given, now, test.seen...)
			if test.refusal != "" {
				require.ErrorContains(t, err, test.refusal)
				return
			}
			require.NoError(t, err)
			require.Equal(t, test.want, floor)
		})
	}
}
