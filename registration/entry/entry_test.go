package entry_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/registration/entry"
)

func valid() *ententev1.Entry {
	return &ententev1.Entry{
		Id: "web", Agent: "node-1", SpiffeId: "spiffe://eu.example.org/web",
		Selectors: []string{"unix:uid:1000", "unix:gid:5", "unix:uid:1000"},
	}
}

func TestParse(t *testing.T) {
	m := valid()
	m.FederatesWith = []string{"us.example.org", "ap.example.org", "us.example.org"}
	m.JwtSvidTtl = durationpb.New(time.Minute)
	e, err := entry.Parse(m)
	require.NoError(t, err)
	require.Equal(t, []string{"unix:gid:5", "unix:uid:1000"}, e.Selectors, "sorted, each once")
	require.Equal(t, []string{"ap.example.org", "us.example.org"}, e.FederatesWith)
	require.Equal(t, time.Minute, e.JWTTTL)
	row := &statev1.RegistrationEntry{}
	e.SetRow(row)
	again, err := entry.Decode(row)
	require.NoError(t, err)
	require.Equal(t, e, again)
}

func TestParseRefuses(t *testing.T) {
	for text, change := range map[string]func(*ententev1.Entry){
		`id "A" must be 1 to 63 small letters`: func(e *ententev1.Entry) { e.Id = "A" },
		`agent "a/b" must be`:                  func(e *ententev1.Entry) { e.Agent = "a/b" },
		"spiffe_id:":                           func(e *ententev1.Entry) { e.SpiffeId = "https://a" },
		"names a trust domain":                 func(e *ententev1.Entry) { e.SpiffeId = "spiffe://eu.example.org" },
		"is below /entente/": func(e *ententev1.Entry) {
			e.SpiffeId = "spiffe://eu.example.org/entente"
		},
		"the entry is for no agent": func(e *ententev1.Entry) { e.Agent = "" },
		"are both given: an entry":  func(e *ententev1.Entry) { e.ParentSelectors = []string{"a:b"} },
		"selectors is empty":        func(e *ententev1.Entry) { e.Selectors = nil },
		"selectors lists 33": func(e *ententev1.Entry) {
			e.Selectors = slices.Repeat([]string{"a:b"}, 33)
		},
		`selectors has "unix:"`:      func(e *ententev1.Entry) { e.Selectors = []string{"unix:"} },
		`selectors has "Unix:uid:1"`: func(e *ententev1.Entry) { e.Selectors = []string{"Unix:uid:1"} },
		"printable text of 512":      func(e *ententev1.Entry) { e.Selectors = []string{"a:b\n"} },
		"x509_svid_ttl is 1.5s": func(e *ententev1.Entry) {
			e.X509SvidTtl = durationpb.New(1500 * time.Millisecond)
		},
		"jwt_svid_ttl is 0s":          func(e *ententev1.Entry) { e.JwtSvidTtl = durationpb.New(0) },
		"dns_names lists a.org twice": func(e *ententev1.Entry) { e.DnsNames = []string{"a.org", "a.org"} },
		"dns_names:":                  func(e *ententev1.Entry) { e.DnsNames = []string{"*"} },
		"dns_names lists 33": func(e *ententev1.Entry) {
			e.DnsNames = slices.Repeat([]string{"a"}, 33)
		},
		"federates_with:": func(e *ententev1.Entry) { e.FederatesWith = []string{"A"} },
		"federates_with lists 257": func(e *ententev1.Entry) {
			e.FederatesWith = slices.Repeat([]string{"a"}, 257)
		},
		"name trust domains or have all": func(e *ententev1.Entry) {
			e.FederatesWith, e.FederatesWithAll = []string{"a"}, true
		},
		"hint must be": func(e *ententev1.Entry) { e.Hint = strings.Repeat("a", 256) },
	} {
		m := valid()
		change(m)
		_, err := entry.Parse(m)
		require.ErrorContains(t, err, text)
	}
}

func TestFor(t *testing.T) {
	one, err := entry.Parse(valid())
	require.NoError(t, err)
	require.True(t, one.For("node-1", nil))
	require.False(t, one.For("node-2", nil))
	m := valid()
	m.Agent, m.ParentSelectors = "", []string{"agent:name:a", "agent:attestation:join_token"}
	selected, err := entry.Parse(m)
	require.NoError(t, err)
	require.True(t, selected.For("node-2", []string{"agent:attestation:join_token", "agent:name:a", "x:y"}))
	require.False(t, selected.For("node-1", []string{"agent:name:a"}))
	require.False(t, entry.Entry{}.For("", nil), "the zero value is for nobody")
}

func TestContent(t *testing.T) {
	a, err := entry.Parse(valid())
	require.NoError(t, err)
	same := valid()
	same.Id, same.Hint, same.Selectors = "other", "x", []string{"unix:gid:5", "unix:uid:1000"}
	b, err := entry.Parse(same)
	require.NoError(t, err)
	require.Equal(t, a.Content(), b.Content())
	for _, change := range []func(*ententev1.Entry){
		func(e *ententev1.Entry) { e.Agent = "node-2" },
		func(e *ententev1.Entry) { e.SpiffeId += "x" },
		func(e *ententev1.Entry) { e.Selectors = e.GetSelectors()[:1] },
		func(e *ententev1.Entry) { e.Agent, e.ParentSelectors = "", []string{"a:node-1"} },
	} {
		m := valid()
		change(m)
		c, err := entry.Parse(m)
		require.NoError(t, err)
		require.NotEqual(t, a.Content(), c.Content())
	}
}

func FuzzParse(f *testing.F) {
	f.Add("web", "node-1", "", "spiffe://eu.example.org/web", "unix:uid:1", "a.org", "us.example.org", "hint")
	f.Fuzz(func(t *testing.T, id, agent, parent, spiffeID, selector, dns, federates, hint string) {
		m := &ententev1.Entry{
			Id: id, Agent: agent, SpiffeId: spiffeID, Selectors: []string{selector}, DnsNames: []string{dns},
			FederatesWith: []string{federates}, Hint: hint,
		}
		if parent != "" {
			m.ParentSelectors = []string{parent}
		}
		e, err := entry.Parse(m)
		if err != nil {
			return
		}
		row := &statev1.RegistrationEntry{}
		e.SetRow(row)
		again, err := entry.Decode(row)
		require.NoError(t, err)
		require.Equal(t, e, again)
	})
}
