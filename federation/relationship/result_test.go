package relationship

import (
	"crypto/x509"
	"os"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestClipLeavesNothingThatDrivesATerminal(t *testing.T) {
	for text, want := range map[string]string{
		"as it is: é, 世界":    "as it is: é, 世界",
		"two\nlines\r":       "two lines ",
		"\x1b[2Jcleared":     " [2Jcleared",
		"\u009b2Jcleared":    " 2Jcleared",
		"turned\u202e round": "turned  round",
		"no\u2028line":       "no line",
		"broken \xff":        "broken \uFFFD",
	} {
		require.Equal(t, want, Clip(text))
	}
	long := Clip(strings.Repeat("世", maxErrorBytes))
	require.True(t, utf8.ValidString(long))
	require.LessOrEqual(t, len(long), maxErrorBytes+len("…"))

	// An endpoint's certificate reaches the error of a failed fetch before anybody has looked who signed it.
	err := x509.HostnameError{
		Host:        "peer.example.org",
		Certificate: &x509.Certificate{DNSNames: []string{"a\x1b]0;b\x07\nentente: all is well"}},
	}
	require.Equal(
		t,
		"x509: certificate is valid for a ]0;b  entente: all is well, not peer.example.org",
		Clip(err.Error()),
	)
}

// TestEveryReasonHasARemedy: an operator finds whatever a fetch can end with in docs/operating/run-book-federation.md.
func TestEveryReasonHasARemedy(t *testing.T) {
	page, err := os.ReadFile("../../docs/operating/run-book-federation.md")
	require.NoError(t, err)
	const refusals = `refusal\.New\("([a-z0-9_]+)"`
	count := 0
	for file, pattern := range map[string]string{
		"../../bundle/errors.go":                   `(?:refusal\.New\(|return )"([a-z0-9_]+)"`,
		"../../bundle/internal/strictjson/text.go": refusals,
		"../../bundle/internal/jwk/jwk.go":         refusals,
		"../../bundle/svid/errors.go":              refusals,
		"../../bundle/statement/errors.go":         refusals,
		"../../bundle/endpoint/errors.go":          refusals,
		"result.go":                                `(?:return |= )"([a-z_]+)"`,
	} {
		source, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, match := range regexp.MustCompile(pattern).FindAllSubmatch(source, -1) {
			require.Contains(t, string(page), "`"+string(match[1])+"`", file)
			count++
		}
	}
	require.Greater(t, count, 50)
}

// TestIsOutage: what can end without an operator is tried again soon.
func TestIsOutage(t *testing.T) {
	for result, want := range map[string]bool{
		"network": true, "timeout": true, "tls": true, "bad_status": true, "other": true,
		"web_certificate": true, "svid_expired": true, "svid_not_yet_valid": true,
		"stored": false, "not_modified": false, "rollback": false, "malformed": false, "too_large": false,
		"other_profile": false, "unexpected_endpoint_id": false, "host_name": false, "untrusted_svid": false,
		"not_an_svid": false, "no_trust": false, "ended": false,
	} {
		require.Equal(t, want, IsOutage(result), result)
	}
}
