package cli

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// TestWarnOfLocality: a locality that is written as a known one is, but for case, or that is in none, is a warning.
func TestWarnOfLocality(t *testing.T) {
	known := []*ententev1.Locality{{Region: "eu-west-1", Zone: "a"}, {Region: "us-east-1", Zone: "b", SubZone: "rack"}}
	for name, test := range map[string]struct {
		locality *ententev1.Locality
		warning  string
	}{
		"known": {&ententev1.Locality{Region: "eu-west-1", Zone: "a"}, ""},
		"unknown": {
			&ententev1.Locality{Region: "eu-west-2", Zone: "A"},
			"the region eu-west-2 is unknown: no member and no instance is in it",
		},
		"another zone": {
			&ententev1.Locality{Region: "eu-west-1", Zone: "b"},
			"the zone b is unknown: no member and no instance of the region eu-west-1 is in it",
		},
		"another sub-zone": {&ententev1.Locality{Region: "us-east-1", Zone: "b", SubZone: "shelf"}, ""},
		"the region alone": {&ententev1.Locality{Region: "eu-west-1"}, ""},
		"region in capitals": {
			&ententev1.Locality{Region: "EU-West-1"},
			"the locality EU-West-1 differs only in case from eu-west-1/a, which is known; they do not match",
		},
		"zone in capitals": {
			&ententev1.Locality{Region: "eu-west-1", Zone: "A"},
			"the locality eu-west-1/A differs only in case from eu-west-1/a, which is known; they do not match",
		},
		"sub-zone in capitals": {
			&ententev1.Locality{Region: "us-east-1", Zone: "b", SubZone: "Rack"},
			"the locality us-east-1/b/Rack differs only in case from us-east-1/b/rack, which is known; they do not " +
				"match",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			(&Env{Stderr: &out}).WarnOfLocality(test.locality, known)
			want := ""
			if test.warning != "" {
				want = "entente: warning: " + test.warning + "\n"
			}
			require.Equal(t, want, out.String())
			out.Reset()
			(&Env{Stderr: &out}).WarnOfLocality(test.locality, nil)
			require.Empty(t, out.String(), "nothing is known")
		})
	}
}
