package relationship_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/relationship"
)

func TestCovers(t *testing.T) {
	for _, test := range []struct {
		take, except []string
		td           string
		want         bool
	}{
		{[]string{"us.example.org"}, nil, "us.example.org", true},
		{[]string{"us.example.org"}, nil, "a.us.example.org", false},
		{[]string{"us.example.org"}, nil, "us.example.orgs", false},
		{[]string{".example.org"}, nil, "us.example.org", true},
		{[]string{".example.org"}, nil, "a.b.example.org", true},
		{[]string{".example.org"}, nil, "example.org", false},
		{[]string{".example.org"}, nil, "badexample.org", false},
		{[]string{".example.org"}, nil, "example.org.evil.net", false},
		{[]string{".example.org"}, nil, ".example.org", false},
		{[]string{".example.org", "bank.example"}, nil, "bank.example", true},
		{[]string{".example.org"}, []string{"us.example.org"}, "us.example.org", false},
		{[]string{".example.org"}, []string{"us.example.org"}, "eu.example.org", true},
		{[]string{".example.org"}, []string{".test.example.org"}, "a.test.example.org", false},
		{[]string{".example.org"}, []string{".test.example.org"}, "test.example.org", true},
	} {
		h, err := relationship.ParseHub(&statev1.RelationshipHub{Include: test.take, Exclude: test.except})
		require.NoError(t, err)
		require.Equal(t, test.want, h.Covers(test.td), "%v but %v: %s", test.take, test.except, test.td)
	}
	var none *relationship.Hub
	require.False(t, none.Covers("us.example.org"))
}

func TestParseHub(t *testing.T) {
	many := make([]string, relationship.MaxHubPatterns+1)
	for i, name := range federationtest.Names(len(many), "example.org") {
		many[i] = name
	}
	for _, test := range []struct {
		row *statev1.RelationshipHub
		err string
	}{
		{&statev1.RelationshipHub{}, "hub.include is empty"},
		{&statev1.RelationshipHub{Include: []string{"*.example.org"}},
			`hub.include names "*.example.org"; write a trust domain`},
		{&statev1.RelationshipHub{Include: []string{"."}}, `hub.include names "."`},
		{&statev1.RelationshipHub{Include: []string{"..example.org"}}, `hub.include names "..example.org"`},
		{&statev1.RelationshipHub{Include: []string{""}}, `hub.include names ""`},
		{&statev1.RelationshipHub{Include: []string{"a.example", "a.example"}}, `hub.include names "a.example" twice`},
		{&statev1.RelationshipHub{Include: []string{"a.example"}, Exclude: []string{"B.example"}},
			`hub.exclude names "B.example"`},
		{&statev1.RelationshipHub{Include: many}, "hub.include has 257 names; 256 are the most"},
		{&statev1.RelationshipHub{Include: []string{"a.example"}, Url: "http://hub.example/bundles"},
			"hub.url is refused"},
	} {
		_, err := relationship.ParseHub(test.row)
		require.ErrorContains(t, err, test.err)
	}
	h, err := relationship.ParseHub(nil)
	require.NoError(t, err)
	require.Nil(t, h)
}

func TestAttested(t *testing.T) {
	fresh := &statev1.RelationshipValidity{Freshness: 1}
	stale := &statev1.RelationshipValidity{Freshness: 2}
	expired := &statev1.RelationshipValidity{Freshness: 3}
	for _, test := range []struct {
		row  *statev1.Relationship
		want bool
	}{
		{&statev1.Relationship{Attest: true, Validity: fresh}, true},
		{&statev1.Relationship{Attest: true, Validity: stale}, true},
		{&statev1.Relationship{Attest: true, Validity: expired}, false},
		{&statev1.Relationship{Attest: true}, false},
		{&statev1.Relationship{Attest: true, Validity: fresh, Suspended: true}, false},
		{&statev1.Relationship{Validity: fresh}, false},
	} {
		require.Equal(t, test.want, relationship.Attested(test.row))
	}
}
