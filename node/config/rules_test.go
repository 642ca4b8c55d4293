package config

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseRules(t *testing.T) {
	rules, err := ParseRules("rules.hcl", []byte(`
rule "*" {
  panic_threshold = 0
  failover "eu-west-1" { to = ["eu-central-1", "us-east-1"] }
}
rule "shop" {
  stale = "drop"
  distribution "eu-west-1" { to = { "eu-west-1/eu-west-1a" = 80, "eu-west-1/eu-west-1b" = 20 } }
}
`))
	require.NoError(t, err)
	require.Len(t, rules, 2)
	require.NotNil(t, rules[0].PanicThreshold)
	require.Nil(t, rules[1].PanicThreshold)
	require.Equal(t, []string{"eu-central-1", "us-east-1"}, rules[0].GetFailover()[0].GetTo())
	require.Equal(t, map[string]uint32{"eu-west-1/eu-west-1a": 80, "eu-west-1/eu-west-1b": 20},
		rules[1].GetDistribution()[0].GetTo())

	rules, err = ParseRules("rules.json", []byte(`{"rules": [{"service": "*", "stale": "keep"}]}`))
	require.NoError(t, err)
	require.Equal(t, "keep", rules[0].GetStale())

	for name, c := range map[string]struct{ text, want string }{
		"an unknown name": {`rule "*" { panik = 1 }`, `f:1: An argument named "panik" is not expected here.`},
		"a broken file": {`rule "*" {`, "f:1: There is no closing brace for this block before the end of the " +
			"file."},
		"a negative number": {`rule "*" { panic_threshold = -1 }`, "f:1: "},
		"unknown JSON":      {`{"ruels": []}`, `unknown field "ruels"`},
	} {
		_, err := ParseRules("f", []byte(c.text))
		require.ErrorContains(t, err, c.want, name)
	}
}
