package cli

import (
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
)

func TestNameFlags(t *testing.T) {
	with := func(use string, flags ...string) *cobra.Command {
		cmd := &cobra.Command{Use: use}
		for _, f := range flags {
			cmd.Flags().String(f, "", "")
		}
		return cmd
	}
	for name, test := range map[string]struct {
		cmd            *cobra.Command
		sentence, want string
	}{
		"a field": {
			with("create DOMAIN", "endpoint-spiffe-id"),
			"endpoint_spiffe_id is missing; profile https_spiffe needs the SPIFFE ID that the endpoint presents",
			"--endpoint-spiffe-id is missing; profile https_spiffe needs the SPIFFE ID that the endpoint presents",
		},
		"several fields": {
			with("update DOMAIN", "ca-ttl", "refresh-hint"),
			"raise ca_ttl (1h0m0s), or lower refresh_hint (5m0s)", "raise --ca-ttl (1h0m0s), or lower " +
				"--refresh-hint (5m0s)",
		},
		"another name": {
			with("grant ROLE", "path", "domain"),
			"path_prefix is for the roles issuer and discovery: leave it out for reader", "--path is for the roles " +
				"issuer and discovery: leave it out for reader",
		},
		"an argument": {with("create DOMAIN"), "trust_domain is empty", "DOMAIN is empty"},
		"a word at the start": {
			with("jwt", "ttl"), "ttl is 100h0m0s; the domain allows 5m0s",
			"--ttl is 100h0m0s; the domain allows 5m0s",
		},
		"a word like others":  {with("jwt", "ttl"), "the ttl is short", "the ttl is short"},
		"no flag of this one": {with("list"), "page_size is negative", "page_size is negative"},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.want, nameFlags(test.cmd, test.sentence)) })
	}
}
