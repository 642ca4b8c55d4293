package preserve_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/routing/registry/preserve"
)

func TestKeeps(t *testing.T) {
	at := func(seconds int, instances int) preserve.Loss {
		return preserve.Loss{Instances: instances, Expired: time.Unix(int64(seconds), 0)}
	}
	kept := func(seconds int, instances int) preserve.Loss {
		l := at(seconds, instances)
		l.Kept = true
		return l
	}
	for name, test := range map[string]struct {
		threshold preserve.Threshold
		losses    []preserve.Loss // the first is judged
		leased    int
		keeps     bool
	}{
		"a crash of the only instance":    {15, []preserve.Loss{at(0, 1)}, 1, false},
		"a crash of one of three":         {15, []preserve.Loss{at(0, 1)}, 3, false},
		"one holder of the whole service": {15, []preserve.Loss{at(0, 8)}, 8, true},
		"four holders at once": {
			15, []preserve.Loss{at(0, 1), at(3, 1), at(9, 1), at(10, 1)}, 4, true,
		},
		"exactly the part":                         {15, []preserve.Loss{at(0, 3)}, 20, false},
		"one more than the part":                   {15, []preserve.Loss{at(0, 3), at(0, 1)}, 20, true},
		"a minute apart":                           {15, []preserve.Loss{at(0, 2), at(60, 2)}, 20, true},
		"more than a minute apart":                 {15, []preserve.Loss{at(0, 2), at(61, 2)}, 20, false},
		"a minute before":                          {15, []preserve.Loss{at(60, 2), at(0, 2)}, 20, true},
		"the last of many, the others kept before": {15, []preserve.Loss{at(900, 1), kept(0, 3)}, 20, true},
		"kept once, kept until it is decided":      {15, []preserve.Loss{kept(0, 1)}, 20, true},
		"kept, and nothing is left of it":          {15, []preserve.Loss{kept(0, 0)}, 20, false},
		"nothing of it counts":                     {15, []preserve.Loss{at(0, 0), at(0, 9)}, 9, false},
		"all, at 99 percent":                       {99, []preserve.Loss{at(0, 100)}, 100, true},
		"turned off":                               {preserve.Off, []preserve.Loss{at(0, 100)}, 100, false},
		"turned off while some are kept":           {preserve.Off, []preserve.Loss{kept(0, 2)}, 2, true},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.keeps, test.threshold.Keeps(test.losses[0], test.losses, test.leased))
		})
	}
}

// TestGroupStaysWhole: of leases that end within a minute all stay or none, in whatever order they are judged, since
// what is kept counts for the rest.
func TestGroupStaysWhole(t *testing.T) {
	for _, holders := range []int{2, 6, 7, 20, 100} {
		for _, leased := range []int{holders, 2 * holders, 7 * holders} {
			losses := make([]preserve.Loss, holders)
			for i := range losses {
				losses[i] = preserve.Loss{Instances: 1, Expired: time.Unix(int64(i*60/holders), 0)}
			}
			for i, l := range losses {
				keeps := preserve.Default.Keeps(l, losses, leased)
				require.Equal(t, holders*100 > 15*leased, keeps, "lease %d of %d, of %d instances", i, holders, leased)
				losses[i].Kept = keeps
			}
		}
	}
}
