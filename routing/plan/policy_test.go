package plan

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

func TestNewPolicyRefusals(t *testing.T) {
	many := make([]FailoverSetting, maxRules+1)
	for _, test := range []struct {
		settings Settings
		want     string
	}{
		{Settings{OverprovisioningFactor: 99}, "overprovisioning_factor is 99; it is a percentage from 100 to 10000"},
		{Settings{OverprovisioningFactor: -1}, "overprovisioning_factor is -1; it is a percentage from 100 to 10000"},
		{Settings{FailoverThreshold: 101}, "failover_threshold is 101; it is a percentage from 1 to 100"},
		{
			Settings{FailoverThreshold: 70, OverprovisioningFactor: 140},
			"overprovisioning_factor 140 and failover_threshold 70 are alternatives; set one of them",
		},
		{Settings{PanicThreshold: percent(101)}, "panic_threshold is 101; it is a percentage from 0 (off) to 100"},
		{Settings{Stale: "ignore"}, `stale is "ignore"; write demote, keep or drop`},
		{Settings{Failover: many}, "there are 257 failover and 0 distribution rules; 256 of each are allowed"},
		{
			Settings{Failover: []FailoverSetting{{"eu/a", []string{"us"}}}},
			`failover from "eu/a": the region has '/' at byte 3; letters, digits, '-', '_' and '.' are ` +
				`allowed, a letter or digit first`,
		},
		{Settings{Failover: []FailoverSetting{{"eu", nil}}}, "failover from eu names 0 regions; name 1 to 256"},
		{Settings{Failover: []FailoverSetting{{"eu", []string{""}}}}, `failover from eu to "": the region is empty`},
		{
			Settings{Failover: []FailoverSetting{{"eu", []string{"eu"}}}},
			"failover from eu names itself; the region of the caller always comes first",
		},
		{Settings{Failover: []FailoverSetting{{"eu", []string{"us", "us"}}}}, "failover from eu names us twice"},
		{
			Settings{Failover: []FailoverSetting{{"eu", []string{"us"}}, {"eu", []string{"ap"}}}},
			"failover from eu occurs twice; merge its regions into one list",
		},
		{
			Settings{Distribution: []DistributionSetting{{"", map[string]int{"eu": 100}}}},
			`distribution from "": not a locality: "": the region is empty`,
		},
		{
			Settings{Distribution: []DistributionSetting{{"eu", map[string]int{"eu": 90}}}},
			"distribution from eu: the percentages add up to 90; they must add up to 100",
		},
		{
			Settings{Distribution: []DistributionSetting{{"eu", nil}}},
			"distribution from eu: the percentages add up to 0; they must add up to 100",
		},
		{
			Settings{Distribution: []DistributionSetting{{"eu", map[string]int{"eu": 0, "us": 100}}}},
			"distribution from eu gives eu 0 percent; write 1 to 100, or leave it out",
		},
		{
			Settings{Distribution: []DistributionSetting{{"*", map[string]int{"eu": 50, "eu/a": 50}}}},
			"distribution from *: eu and eu/a overlap, so the percentage is ambiguous",
		},
		{
			Settings{Distribution: []DistributionSetting{{"eu", map[string]int{"a b": 100}}}},
			`distribution from eu to "a b": not a locality: "a b": the region has ' ' at byte 2; ` +
				`letters, digits, '-', '_' and '.' are allowed, a letter or digit first`,
		},
		{
			Settings{
				Distribution: []DistributionSetting{
					{"eu", map[string]int{"eu": 100}},
					{"eu/*", map[string]int{"us": 100}},
				},
			},
			"distribution from eu occurs twice; the second would never apply",
		},
	} {
		_, err := NewPolicy(test.settings)
		require.EqualError(t, err, test.want)
	}
}

func TestDefaultPolicy(t *testing.T) {
	p := policy(t, Settings{})
	require.Equal(t, DefaultPolicy().String(), p.String())
	require.Equal(
		t,
		"overprovisioning 140, panic threshold 50, stale demote, 0 failover and 0 distribution rules",
		p.String(),
	)
	require.EqualValues(t, 140, p.Overprovisioning())
	require.EqualValues(t, 50, p.PanicThreshold())
}

// TestNearerPrecedesFarther: a nearer instance never follows a farther one, whatever the failover rules.
func TestNearerPrecedesFarther(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := DefaultPolicy()
		if regions := rapid.SliceOfDistinct(
			rapid.SampledFrom([]string{"b", "c", "d"}),
			rapid.ID[string],
		).Draw(t, "failover"); len(
			regions,
		) > 0 {
			p.failover = map[string][]string{"a": regions}
		}
		part := rapid.SampledFrom([]string{"a", "b", "c", "d", "e"})
		draw := func() Locality {
			return Locality{part.Draw(t, "region"), part.Draw(t, "zone"), part.Draw(t, "sub-zone")}
		}
		from, one, two := draw(), draw(), draw()
		shared := func(l Locality) int {
			n := 0
			for i, s := range strings.Split(l.String(), "/") {
				if s != strings.Split(from.String(), "/")[i] {
					break
				}
				n++
			}
			return n
		}
		if shared(one) > shared(two) {
			require.Less(t, p.base(from, one), p.base(from, two))
		}
	})
}

// TestFirstErrorOfRule: a rule with several errors is rejected with the same one each time, by every member.
func TestFirstErrorOfRule(t *testing.T) {
	far := make(map[string]uint32)
	for place := byte('a'); place <= 'z'; place++ {
		far[string(place)] = 101
	}
	for want, rule := range map[string]*ententev1.RoutingRule{
		"overprovisioning_factor is 0": {
			Service:                "shop",
			OverprovisioningFactor: proto.Uint32(0),
			FailoverThreshold:      proto.Uint32(0),
		},
		"gives a 101 percent": {Service: "shop", Distribution: []*ententev1.DistributionRule{
			{From: "eu", To: far},
		}},
	} {
		for range 20 {
			_, err := ParseRule(rule)
			require.ErrorContains(t, err, want)
		}
	}
}

// TestLargeRule: all rules together fit into one response.
func TestLargeRule(t *testing.T) {
	var list []*ententev1.DistributionRule
	for n := range maxRules {
		to := make(map[string]uint32)
		for m := range 10 {
			to[fmt.Sprintf("region-%d/zone-%d", n, m)] = 10
		}
		list = append(list, &ententev1.DistributionRule{From: fmt.Sprintf("region-%d", n), To: to})
	}
	_, err := ParseRule(&ententev1.RoutingRule{Service: "shop", Distribution: list})
	require.ErrorIs(t, err, ErrRule)
	require.ErrorContains(t, err, "32768 are allowed; name fewer regions and places")
	_, err = ParseRule(&ententev1.RoutingRule{Service: "shop", Distribution: list[:100]})
	require.NoError(t, err)
}

// TestUnreachableDistribution: the first distribution whose place contains the caller applies, so that one for a part
// of a place must precede it.
func TestUnreachableDistribution(t *testing.T) {
	from := func(places ...string) (list []*statev1.DistributionRule) {
		for _, place := range places {
			list = append(list, &statev1.DistributionRule{From: place})
		}
		return list
	}
	require.Empty(t, UnreachableDistributions("shop", from("eu/a/1", "eu/a", "eu/b", "eu", "us", "*")))
	require.Equal(t, []string{
		"the rule for shop has a distribution from eu/a that never applies: the one from eu precedes it",
		"the rule for shop has a distribution from ap that never applies: the one from * precedes it",
	}, UnreachableDistributions("shop", from("eu/*", "eu/a", "*", "ap")))
}

// TestOverlayOfTheSamePlace: a rule for a place replaces a previous one for the same place, in whatever notation.
func TestOverlayOfTheSamePlace(t *testing.T) {
	to := map[string]int{"*": 100}
	got := Settings{
		Distribution: []DistributionSetting{{"eu", to}, {"us", to}, {"*", to}},
	}.Overlay(
		Settings{Distribution: []DistributionSetting{{"ap", to}, {"eu/*", to}}},
	)
	require.Equal(t, []DistributionSetting{{"ap", to}, {"eu/*", to}, {"us", to}, {"*", to}}, got.Distribution)
}
