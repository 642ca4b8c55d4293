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
	require.Equal(t, map[string]uint32{"eu-west-1/eu-west-1a": 80, "eu-west-1/eu-west-1b": 20}, rules[1].GetDistribution()[0].GetTo())

	rules, err = ParseRules("rules.json", []byte(`{"rules": [{"service": "*", "stale": "keep"}]}`))
	require.NoError(t, err)
	require.Equal(t, "keep", rules[0].GetStale())

	for name, text := range map[string]string{
		"an unknown name":   `rule "*" { panik = 1 }`,
		"a broken file":     `rule "*" {`,
		"a negative number": `rule "*" { panic_threshold = -1 }`,
		"unknown JSON":      `{"ruels": []}`,
	} {
		_, err := ParseRules("f", []byte(text))
		require.Error(t, err, name)
	}
}
