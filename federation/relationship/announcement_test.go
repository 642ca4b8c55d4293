package relationship

import (
	"encoding/hex"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/federation/federationtest"
)

// TestAnnouncement tests that addresses and URLs follow announcements unless an operator has set others.
func TestAnnouncement(t *testing.T) {
	const spiffe, web = ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_SPIFFE,
		ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB
	for name, c := range map[string]struct {
		was, known, told, want []string
		changes                bool
	}{
		"moved": {
			[]string{"a:1", "b:1"}, []string{"a:1", "b:1"}, []string{"b:1", "b:2"}, []string{"b:1", "b:2"}, true,
		},
		"moved to a host that was not agreed": {
			[]string{"a:1", "b:1"}, []string{"a:1", "b:1"}, []string{"b:2", "c:1"}, []string{"a:1", "b:1"}, true,
		},
		"as before": {[]string{"a:1"}, []string{"a:1"}, []string{"a:1"}, []string{"a:1"}, false},
		"as before, by another member": {
			[]string{"a:1", "b:1"}, []string{"a:1", "b:1"}, []string{"b:1", "a:1"}, []string{"a:1", "b:1"}, false,
		},
		"has not told": {[]string{"a:1"}, []string{"a:1"}, nil, []string{"a:1"}, false},
		"set by an operator": {
			[]string{"balancer:1"}, []string{"a:1"}, []string{"b:1"}, []string{"balancer:1"}, true,
		},
		"what was told was unknown": {[]string{"a:1"}, nil, []string{"b:1"}, []string{"a:1"}, true},
	} {
		row := func(profile ententev1.EndpointProfile, linked bool) *statev1.Relationship {
			return &statev1.Relationship{
				Url: c.was[0], FallbackUrls: c.was[1:], Profile: int32(profile), Peer: &statev1.RelationshipPeer{
					HomeTrustDomain: "us.example.org", Addresses: c.was,
				},
				Agreement: &statev1.RelationshipAgreement{
					Identities: [][]byte{{1}},
					Addresses:  c.known,
					Urls:       c.known,
					LinkedHome: linked,
				},
			}
		}
		r := row(spiffe, false)
		require.Equal(t, c.changes, Announcement{Addresses: c.told}.Apply(r), name)
		require.Equal(t, c.want, r.GetPeer().GetAddresses(), name)
		require.Equal(t, c.was, URLs(r), name)
		r = row(spiffe, false)
		require.Equal(t, c.changes, Announcement{Urls: c.told, HomeURLs: []string{"home"}}.Apply(r), name)
		require.Equal(t, c.want, URLs(r), name)
		require.Equal(t, c.was, r.GetPeer().GetAddresses(), name)
		r = row(spiffe, true)
		require.Equal(t, c.changes, Announcement{Urls: []string{"other"}, HomeURLs: c.told}.Apply(r), name)
		require.Equal(t, c.want, URLs(r), "%s: what came along for the home domain", name)
		r = row(web, false)
		require.Equal(t, c.changes, Announcement{Urls: c.told}.Apply(r), name)
		require.Equal(t, c.was, URLs(r), "%s: the URL is what an https_web endpoint proves", name)
		require.True(t, Announcement{Identities: [][]byte{{2}}}.Apply(r), name)
		require.Equal(t, [][]byte{{2}}, r.GetAgreement().GetIdentities(), name)
	}
	incoming := &statev1.Relationship{
		Peer: &statev1.RelationshipPeer{
			HomeTrustDomain: "us.example.org",
		}, Agreement: &statev1.RelationshipAgreement{Addresses: []string{"a:1"}},
	}
	require.True(t, Announcement{Addresses: []string{"b:1"}}.Apply(incoming))
	require.Empty(t, incoming.GetPeer().GetAddresses(), "an operator has left the dialing to the other side")
	without := &statev1.Relationship{Agreement: &statev1.RelationshipAgreement{}}
	require.True(t, Announcement{Addresses: []string{"b:1"}}.Apply(without))
	require.Nil(t, without.GetPeer(), "an operator has taken the peer away")
}

// TestPeersStayAtAgreedHosts tests that what names another host waits until an operator approves it, is not forgotten
// meanwhile, and ends when the peer takes it back.
func TestPeersStayAtAgreedHosts(t *testing.T) {
	row := func() *statev1.Relationship {
		return &statev1.Relationship{
			Url:     "https://us-1.example.org:7443/",
			Peer:    &statev1.RelationshipPeer{Addresses: []string{"us-1.example.org:7440"}},
			Profile: int32(ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_SPIFFE),
			Agreement: &statev1.RelationshipAgreement{
				Urls: []string{"https://us-1.example.org:7443/"}, Addresses: []string{"us-1.example.org:7440"},
			},
		}
	}
	r := row()
	require.Equal(t, []string{"us-1.example.org"}, AgreedHosts(r))
	moved := Announcement{
		Addresses: []string{"US-1.example.org:7441"}, Urls: []string{"https://us-1.example.org/b", "https://10.0.0.1/"},
	}
	require.True(t, moved.Apply(r))
	require.Equal(t, []string{"US-1.example.org:7441"}, r.GetPeer().GetAddresses(), "another port of the host")
	require.Equal(t, []string{"https://us-1.example.org:7443/"}, URLs(r), "one other host makes the whole list wait")
	require.Equal(t, moved.Urls, AgreementMessage(r).GetPendingUrls())
	require.False(t, moved.Apply(r), "it is stored once")
	require.Equal(t, []string{"us-1.example.org"}, AgreedHosts(r), "an announcement agrees nothing")

	require.True(t, ApplyPending(r))
	require.Equal(t, moved.Urls, URLs(r))
	require.Empty(t, r.GetAgreement().GetPendingUrls())
	require.False(t, ApplyPending(r))
	require.Equal(t, []string{"10.0.0.1", "us-1.example.org"}, AgreedHosts(r))

	r = row()
	require.True(t, moved.Apply(r))
	require.True(t, Announcement{Urls: []string{"https://us-1.example.org:7443/"}}.Apply(r), "the peer takes it back")
	require.Empty(t, r.GetAgreement().GetPendingUrls())

	r = row()
	r.Url = "https://balancer.example.org/" // an operator's
	require.True(t, moved.Apply(r))
	require.True(t, ApplyPending(r))
	require.Equal(t, "https://balancer.example.org/", r.GetUrl(), "approval changes nothing that an operator set")
}

// TestWebRootsFollow tests that the web roots of an https_web endpoint follow the other side at agreed hosts, unless an
// operator has set others, and else wait for an operator.
func TestWebRootsFollow(t *testing.T) {
	old := federationtest.NewAuthority(t, "us.example.org").PEM()
	next := federationtest.NewAuthority(t, "us.example.org").PEM()
	other := federationtest.NewAuthority(t, "other.example.org").PEM()
	const url, elsewhere = "https://us-1.example.org:7443/", "https://elsewhere.example.org/"
	const web, spiffe = ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB,
		ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_SPIFFE
	digest := func(roots []byte) string { return hex.EncodeToString(endpoint.RootsDigest(roots)) }
	for name, c := range map[string]struct {
		profile           ententev1.EndpointProfile
		has, last         []byte
		announced         Announcement
		want, waits       []byte // before an operator approves
		approved          []byte // after
		changes, changes2 bool   // the announcement, and its repetition
	}{
		"rotated": {
			web, old, old, Announcement{Urls: []string{url}, WebRoots: next}, next, nil, next, true, false,
		},
		"rotated, and no URL": {web, old, old, Announcement{WebRoots: next}, next, nil, next, true, false},
		"as before":           {web, old, old, Announcement{WebRoots: old}, old, nil, old, false, false},
		"not announced":       {web, old, old, Announcement{}, old, nil, old, false, false},
		"at a host that was not agreed": {
			web, old, old, Announcement{Urls: []string{url, elsewhere}, WebRoots: next}, old, next, next, true, false,
		},
		"set by an operator": {web, other, old, Announcement{WebRoots: next}, other, nil, other, true, false},
		"set by an operator, at another host": {
			web, other, old, Announcement{Urls: []string{elsewhere}, WebRoots: next}, other, next, other, true, false,
		},
		"the system's roots before": {web, nil, nil, Announcement{WebRoots: next}, nil, next, next, true, false},
		"https_spiffe":              {spiffe, nil, nil, Announcement{WebRoots: next}, nil, nil, nil, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			row := &statev1.Relationship{
				Url: url, Profile: int32(c.profile), WebRoots: c.has, Agreement: &statev1.RelationshipAgreement{
					Urls: []string{url}, WebRootsSha256: endpoint.RootsDigest(c.last),
				},
			}
			require.Equal(t, c.changes, c.announced.Apply(row))
			require.Equal(t, c.changes2, c.announced.Apply(row), "it is stored once")
			require.Equal(t, string(c.want), string(row.GetWebRoots()))
			require.Equal(t, digest(c.waits), AgreementMessage(row).GetPendingWebRootsSha256())
			require.Equal(t, c.waits != nil, ApplyPending(row))
			require.Equal(t, string(c.approved), string(row.GetWebRoots()))
			require.Empty(t, AgreementMessage(row).GetPendingWebRootsSha256())
			require.Equal(t, url, row.GetUrl(), "the URL is what an https_web endpoint proves")
		})
	}
	row := &statev1.Relationship{
		Url: url, Profile: int32(web), WebRoots: old, Agreement: &statev1.RelationshipAgreement{
			Urls: []string{url}, WebRootsSha256: endpoint.RootsDigest(old),
		},
	}
	require.True(t, Announcement{Urls: []string{elsewhere}, WebRoots: next}.Apply(row))
	require.True(t, Announcement{Urls: []string{url}, WebRoots: old}.Apply(row), "the peer takes it back")
	require.False(t, ApplyPending(row))
	require.Equal(t, string(old), string(row.GetWebRoots()))
}

// TestHostileAnnouncements tests that one invalid part makes an announcement invalid.
func TestHostileAnnouncements(t *testing.T) {
	identities := [][]byte{make([]byte, 32)}
	for want, m := range map[string]*ententev1.ExchangeConsentContent{
		"": {
			Identities: identities, Addresses: []string{"a:1"}, Urls: []string{"https://a/"},
		},
		"of 0 members":                       {},
		"HOST:PORT":                          {Identities: identities, Addresses: []string{"a"}},
		"9 are the most":                     {Identities: identities, Addresses: make([]string, MaxPeerAddresses+1)},
		"4 are the most":                     {Identities: identities, HomeUrls: make([]string, MaxEndpoints+1)},
		"an endpoint that it names: the URL": {Identities: identities, Urls: []string{"http://a/"}},
		"169.254.169.254 is a link-local address, which only an operator can give": {
			Identities: identities, Urls: []string{"https://169.254.169.254/latest"},
		},
		"fd00:ec2::254 is a metadata service address": {
			Identities: identities, Addresses: []string{"[fd00:ec2::254]:80"},
		},
		"0.0.0.0 is a unspecified address": {Identities: identities, HomeUrls: []string{"https://0.0.0.0/"}},
		"twice":                            {Identities: identities, Urls: []string{"https://a/", "https://a/"}},
		"its web roots: after 0 certificates there is something that is not PEM": {
			Identities: identities, WebRoots: []byte("roots"),
		},
		"its web roots have 32769 bytes; 32768 are the most": {
			Identities: identities, WebRoots: make([]byte, 32<<10+1),
		},
	} {
		told, err := ParseAnnouncement(m, time.Now())
		if want == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, want)
		require.Zero(t, told)
	}
}
