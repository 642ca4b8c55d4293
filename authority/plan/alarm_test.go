package plan

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAlarms(t *testing.T) {
	start := time.Now()
	active := Authority{State: Active, NotBefore: start, NotAfter: start.Add(24 * time.Hour)}
	for name, test := range map[string]struct {
		at     time.Duration
		newest map[State]Authority
		silent bool
		want   map[string]bool
	}{
		"all is well": {
			17 * time.Hour, map[State]Authority{Active: active}, false,
			map[string]bool{"late": false, "none": false, "silent": false},
		},
		"late": {
			18 * time.Hour, map[State]Authority{Active: active}, false,
			map[string]bool{"late": true, "none": false, "silent": false},
		},
		"on its way": {
			18 * time.Hour, map[State]Authority{Active: active, Prepared: {}}, false,
			map[string]bool{"late": false, "none": false, "silent": false},
		},
		"none": {
			0, map[State]Authority{Retiring: active}, true,
			map[string]bool{"late": false, "none": true, "silent": true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.want, Alarms(start.Add(test.at), test.newest, test.silent))
		})
	}
}
