package docs

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestCompare(t *testing.T) {
	const (
		table   = "ID   KIND   EXPIRES\ninctdztdjebnw3z3   jwt    in 23h59m\nlvdp5w5jjqfjtqrk   x509   in 1h\n"
		another = "ID   KIND   EXPIRES\n6e67xj5sp54incd2   x509   in 2h\np4t5vrpzmxzeg7sr   jwt   in 3m\n"
	)
	for name, c := range map[string]struct {
		shown, output string
		equal         bool
	}{
		"equal":           {"a  b", "a  b", true},
		"another word":    {"state: active", "state: pending", false},
		"a missing line":  {"a\nb", "a", false},
		"a further line":  {"a", "a\nb", false},
		"widths":          {"A   B\n1   2", "A     B\n1     2", true},
		"times":           {"created: 2026-11-23T00:39:12Z (just now)", "created: 2027-01-02T10:00:00Z (in 4m)", true},
		"a set duration":  {"ttl: 30m", "ttl: 1h", false},
		"a measured one":  {"after 1.2 s", "after 31 ms", true},
		"an id":           {"authority: 6e67xj5sp54incd2", "authority: p4t5vrpzmxzeg7sr", true},
		"a port":          {"at 127.0.0.1:42865", "at 127.0.0.1:1", true},
		"an address":      {"at 10.0.0.5:8443", "at 10.0.0.5:8444", false},
		"a share":         {"100%", "50%", false},
		"a sequence":      {"sequence:   6", "sequence:   12", true},
		"a token":         {"entente-join-1-aB_-c", "entente-join-1-Zz09", true},
		"a digest":        {"digest: 15bc9f647b7d62c4", "digest: 2e2efb8748480", true},
		"a folder":        {"/tmp/entente-dev-1/admin.sock", "/var/folders/x/entente-dev-22/admin.sock", true},
		"a column":        {"DOMAIN   SEQUENCE\nus   6", "DOMAIN   SEQUENCE\nus   17", true},
		"another column":  {"DOMAIN   WEIGHT\nus   6", "DOMAIN   WEIGHT\nus   17", false},
		"order of ids":    {table, another, true},
		"an ellipsis":     {"refused: …; see", "refused: no; see", true},
		"one at the end":  {"fresh …", "fresh", true},
		"some lines":      {"a\n…\nz", "a\nb\nc\nz", true},
		"no lines":        {"a\n…\nz", "a\nz", true},
		"the wrong lines": {"a\n…\nz", "a\nb", false},
		"a cut cell":      {"asia.example.org active x", "asia.example.… active x", true},
		"a wrong cut":     {"asia.example.org active x", "us.example.… active x", false},
		"both cut":        {"asia.example.org active …", "asia.exa… active h… y", true},
		"cut tables":      {"DOMAIN   STATE   …\nus   active   …", "DOMAIN   STATE   URL\nus   active   x", true},
	} {
		t.Run(name, func(t *testing.T) {
			err := Compare(strings.Split(c.shown, "\n"), strings.Split(c.output, "\n"))
			assert.Equal(t, c.equal, err == nil, "%v", err)
		})
	}
	err := Compare([]string{"sequence: 1", "a"}, []string{"sequence: 2", "b"})
	assert.EqualError(t, err,
		"the page shows\n    sequence: <n>\n    a\nand the command prints\n    sequence: <n>\n    b")
}
