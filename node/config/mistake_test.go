package config

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The mistakes that people make with the syntax are explained by what to write.
func TestMistakes(t *testing.T) {
	for _, c := range []struct{ name, src, want string }{
		{"a duration", "raft {\n disk_timeout = 10s\n}",
			`12: disk_timeout: 10s is not quoted; write disk_timeout = "10s"`},
		{"a duration in one line", `raft { disk_timeout = 10s }`,
			`11: disk_timeout: 10s is not quoted; write disk_timeout = "10s"`},
		{"a path", "telemetry {\n listen = /run/entente # here\n}",
			`12: listen: /run/entente is not quoted; write listen = "/run/entente"`},
		{"an address", "telemetry {\n listen = 127.0.0.1:7448\n}",
			`12: listen: 127.0.0.1:7448 is not quoted; write listen = "127.0.0.1:7448"`},
		{"a word", `telemetry { log_level = debug }`,
			`11: telemetry.log_level: debug is not quoted; write log_level = "debug"`},
		{"a name that reads as a subtraction", `telemetry { listen = eu-west-1 }`,
			`11: telemetry.listen: eu-west-1 is not quoted; write listen = "eu-west-1"`},
		{"words in a list", "join {\n addresses = [a, b]\n token = \"env:T\"\n}",
			`12: join.addresses: a value of the list is not quoted; write addresses = ["…", "…"]`},
		{"a variable", `telemetry { listen = "${HOST}:7448" }`,
			`11: telemetry.listen: the file has no variables: write the value itself, or $${ for the two characters ` +
				`${`},
		{"a word for a number", `routing { panic_threshold = none }`,
			`11: routing.panic_threshold: none is not a number`},
		{"a list of one", `telemetry { listen = ["127.0.0.1:7448"] }`,
			`11: telemetry.listen: must be one value and not a list; write listen = "127.0.0.1:7448"`},
		{"a list of two", `telemetry { listen = ["a", "b"] }`,
			`11: telemetry.listen: must be one value and not a list`},
		{"an object", `telemetry { listen = { a = "b" } }`,
			`11: telemetry.listen: must be a text in quotes`},
		{"null", `telemetry { listen = null }`,
			`11: telemetry.listen: must be a text in quotes`},
		{"an empty list", "join {\n addresses = []\n token = \"env:T\"\n}",
			`12: join.addresses: must not be empty`},
		{"a list with a list", "join {\n addresses = [[\"a:1\"]]\n token = \"env:T\"\n}",
			`12: join.addresses: must be a list of texts in quotes, such as ["a", "b"]`},

		{"a setting of another block", `federation { ca_ttl = "24h" }`,
			`11: An argument named "ca_ttl" is not expected here: it belongs in authority.`},
		{"a setting of several other blocks", `raft { listen = "127.0.0.1:7448" }`,
			`11: An argument named "listen" is not expected here: it belongs in bundle_endpoint, or in member, or in ` +
				`telemetry.`},
		{"a setting outside of all blocks", `zone = "a"`,
			`11: An argument named "zone" is not expected here: it belongs in member.`},
		{"a block outside of its block", `keys "memory" {}`,
			`11: Blocks of type "keys" are not expected here: they belong in authority.`},
		{"a block in another block", `routing {
 telemetry {}
}`, `12: Blocks of type "telemetry" are not expected here: they belong outside of all blocks.`},
		{"a setting as a block", "raft {\n disk_timeout {}\n}",
			`12: Blocks of type "disk_timeout" are not expected here. Did you mean to define argument ` +
				`"disk_timeout"? ` +
				`If so, use the equals sign to assign it a value.`},
		{"a block as a setting", `raft = { disk_timeout = "1s" }`,
			`11: An argument named "raft" is not expected here. Did you mean to define a block of type "raft"?`},
		{"a mark instead of a secret", "join {\n addresses = [\"a:1\"]\n token = \"(hidden)\"\n}",
			`13: join.token: "(hidden)" is what 'entente validate --effective' prints instead of a secret; write the ` +
				`secret as "file:PATH" or "env:NAME"`},

		{"a port twice", `telemetry { listen = "127.0.0.1:7443" }`,
			`11: telemetry.listen: "127.0.0.1:7443" takes the port of bundle_endpoint.listen, "127.0.0.1:7443"; give ` +
				`each a port of its own`},
		{"a port of every address", "telemetry {\n listen = \"0.0.0.0:7440\"\n}",
			`12: telemetry.listen: "0.0.0.0:7440" takes the port of member.listen, "127.0.0.1:7440"; give each a ` +
				`port ` +
				`of its own`},
		{"a port by its name", `bundle_endpoint { listen = "localhost:7440" }`,
			`11: bundle_endpoint.listen: "localhost:7440" takes the port of member.listen, "127.0.0.1:7440"; give ` +
				`each a port of its own`},
		{"a port of the default", `bundle_endpoint { listen = "[::]:7448" }`,
			`11: bundle_endpoint.listen: "[::]:7448" takes the port of telemetry.listen, "127.0.0.1:7448"; give each ` +
				`a port of its own`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := decode(t, validHead+c.src)
			require.Error(t, err)
			require.Equal(t, c.want, strings.TrimPrefix(err.Error(), "entente.hcl:"))
		})
	}
	for _, different := range []string{`"127.0.0.2:7440"`, `"[::1]:7440"`, `"127.0.0.1:7441"`, `"eu-1:7440"`} {
		_, err := decode(t, validHead+`telemetry { listen = `+different+` }`)
		require.NoError(t, err)
	}
}
