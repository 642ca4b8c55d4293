package plan

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseLocality(t *testing.T) {
	for text, want := range map[string]string{
		"eu":              "",
		"eu-west-1/a/b_1": "",
		"":                `not a locality: "": the region is empty`,
		"/a":              `not a locality: "/a": the region is empty`,
		"eu/":             `not a locality: "eu/": the zone is empty`,
		"eu//b":           `not a locality: "eu//b": the zone is empty`,
		"eu/a/b/c": `not a locality: "eu/a/b/c" has 4 parts; write REGION, ` +
			`REGION/ZONE or REGION/ZONE/SUB-ZONE`,
		"eu west": `not a locality: "eu west": the region has ' ' at byte 3; ` +
			`letters, digits, '-', '_' and '.' are allowed, a letter or digit first`,
		"-eu": `not a locality: "-eu": the region has '-' at byte 1; letters, ` +
			`digits, '-', '_' and '.' are allowed, a letter or digit first`,
		"eu/" + strings.Repeat("a", 64): `not a locality: "eu/` +
			strings.Repeat("a", 64) + `": the zone has 64 bytes; 63 ` +
			`are allowed`,
	} {
		l, err := ParseLocality(text)
		if want == "" {
			require.NoError(t, err)
			require.Equal(t, text, l.String())
			continue
		}
		require.ErrorIs(t, err, ErrLocality)
		require.EqualError(t, err, want)
	}
}

func TestParseAddress(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.1:443":          "10.0.0.1:443",
		"[2001:DB8::0001]:443":  "[2001:db8::1]:443",
		"[::ffff:10.0.0.1]:443": "10.0.0.1:443",
		"127.0.0.1:1":           "127.0.0.1:1",
		"example.org:443":       "write an IP literal and a port",
		"10.0.0.1":              "write an IP literal and a port",
		"10.0.0.1:70000":        "write an IP literal and a port",
		"2001:db8::1:443":       "write an IP literal and a port",
		"010.0.0.1:443":         "write an IP literal and a port",
		"":                      "write an IP literal and a port",
		"10.0.0.1:0":            "port 0 cannot be dialled",
		"[fe80::1%eth0]:443":    "an IPv6 zone means something on one host only",
		"[fe80::1]:443":         "needs a zone",
		"0.0.0.0:443":           "the unspecified address cannot be dialled; name the address that callers reach",
		"[::]:443":              "the unspecified address cannot be dialled",
		"[::ffff:0.0.0.0]:443":  "the unspecified address cannot be dialled",
		"224.0.0.1:443":         "it is not the address of one host",
		"[ff02::1]:443":         "it is not the address of one host",
		"255.255.255.255:443":   "it is not the address of one host",
	} {
		a, err := ParseAddress(text)
		if err == nil {
			require.Equal(t, want, a.String(), text)
			continue
		}
		require.ErrorIs(t, err, ErrAddress)
		require.ErrorContains(t, err, want, text)
	}
}

func TestCheckServiceName(t *testing.T) {
	for name, want := range map[string]string{
		"shop": "", "shop.v2_a-b": "", "1": "",
		"": "not a service name: it is empty",
		"Shop": `not a service name: "Shop" has 'S' at byte 1; small letters, digits, ` +
			`'-', '_' and '.' are allowed, a letter or digit first and last`,
		"a/b":                    `'/' at byte 2`,
		"-a":                     `'-' at byte 1`,
		"a.":                     `'.' at byte 2`,
		strings.Repeat("a", 129): "has 129 bytes; 128 are allowed",
	} {
		err := CheckServiceName(name)
		if want == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorIs(t, err, ErrServiceName)
		require.ErrorContains(t, err, want)
	}
}

func FuzzParseText(f *testing.F) {
	for _, text := range []string{
		"eu/a/b", "*", "eu/*", "10.0.0.1:443", "[::ffff:10.0.0.1]:443", "[fe80::1%a]:1", "shop",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if l, err := ParseLocality(text); err == nil {
			require.Equal(t, text, l.String())
			again, err := LocalityFromProto(l.Proto())
			require.NoError(t, err)
			require.Equal(t, l, again)
		} else {
			require.Less(t, len(err.Error()), 1000)
		}
		if p, err := parsePattern(text); err == nil {
			again, err := parsePattern(patternText(p))
			require.NoError(t, err)
			require.Equal(t, p, again)
		}
		if a, err := ParseAddress(text); err == nil {
			again, err := ParseAddress(a.String())
			require.NoError(t, err)
			require.Equal(t, a, again)
			require.NotZero(t, a.Port())
			require.False(t, a.Addr().Is4In6() || a.Addr().IsUnspecified() || a.Addr().Zone() != "")
		}
		if CheckServiceName(text) == nil {
			require.NotContains(t, text, "/")
			require.LessOrEqual(t, len(text), maxServiceName)
		}
	})
}
