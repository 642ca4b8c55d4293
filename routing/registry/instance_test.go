package registry

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/routing/routingtest"
)

func TestParseInstance(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*ententev1.Instance)
		want   string
	}{
		{"as it is", func(*ententev1.Instance) {}, ""},
		{"service", func(i *ententev1.Instance) { i.Service = "" }, "not a service name: it is empty"},
		{"address", func(i *ententev1.Instance) { i.Address = "shop:443" }, "not an address"},
		{
			"no locality",
			func(i *ententev1.Instance) { i.Locality = nil },
			"not a locality: it is empty; at least a region is required",
		},
		{"no zone", func(i *ententev1.Instance) { i.Locality.Zone = "" }, `"eu": an instance runs in a zone`},
		{
			"sub-zone without zone",
			func(i *ententev1.Instance) { i.Locality.Zone, i.Locality.SubZone = "", "b" },
			`"eu//b": the zone is empty`,
		},
		{"slash in a part", func(i *ententev1.Instance) { i.Locality.Region = "eu/a" }, "a part contains a slash"},
		{
			"not a SPIFFE ID",
			func(i *ententev1.Instance) { i.SpiffeId = "https://eu.example.org/shop" },
			`does not begin with "spiffe://"`,
		},
		{"no SPIFFE ID", func(i *ententev1.Instance) { i.SpiffeId = "" }, "SPIFFE ID"},
		{
			"a trust domain",
			func(i *ententev1.Instance) { i.SpiffeId = "spiffe://eu.example.org" },
			"not an instance: the SPIFFE ID spiffe://eu.example.org has no path; callers expect that of a workload",
		},
		{
			"heavy",
			func(i *ententev1.Instance) { i.Weight = plan.MaxWeight + 1 },
			"not an instance: the weight is 1048577; 1 to 1048576 are allowed",
		},
		{
			"health",
			func(i *ententev1.Instance) { i.Health = 9 },
			"not an instance: health 9 is not known; healthy, degraded, unhealthy and draining are",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := routingtest.Registration()
			test.change(m)
			i, err := ParseInstance(m)
			if test.want != "" {
				require.ErrorContains(t, err, test.want)
				return
			}
			require.NoError(t, err)
			require.EqualValues(t, 1, i.Weight)
			require.Equal(t, plan.Healthy, i.Health)
		})
	}
	_, err := ParseInstance(nil)
	require.ErrorIs(t, err, errInstance)
}

func FuzzParseInstance(f *testing.F) {
	for _, m := range []*ententev1.Instance{routingtest.Registration(), {}, {
		Address:  "[::1]:1",
		Locality: &ententev1.Locality{Region: "a/b"},
	}} {
		b, err := proto.Marshal(m)
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m ententev1.Instance
		if proto.Unmarshal(b, &m) != nil {
			return
		}
		i, err := ParseInstance(&m)
		if err != nil {
			return
		}
		// An accepted instance is stored without loss.
		back, err := fromRow(
			raftstore.Row[*statev1.Instance]{
				Key:   set{service: i.Service}.in(firstGeneration) + i.Address.String(),
				Value: i.Row(),
			},
		)
		require.NoError(t, err)
		back.Registered = i.Registered
		require.Equal(t, i, back)
		require.Equal(t, 3, strings.Count(i.Key(), "/"), "a key has four parts")
	})
}
