package relationship

import (
	"testing"

	"github.com/stretchr/testify/require"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
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
	} {
		told, err := ParseAnnouncement(m)
		if want == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, want)
		require.Zero(t, told)
	}
}
