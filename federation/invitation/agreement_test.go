package invitation

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/internal/token"
	"github.com/ententehq/entente/raftstore"
)

// TestRedeemable tests which requests may use an invitation.
func TestRedeemable(t *testing.T) {
	secret := token.NewSecret()
	digest := secret.Digest()
	us := [32]byte{7}
	row := func(change ...func(*statev1.Invitation)) *statev1.Invitation {
		i := &statev1.Invitation{
			TrustDomain:        "eu.example.org",
			ForeignTrustDomain: "us.example.org",
			SecretSha256:       digest[:],
			ExpireTime:         timestamppb.New(someTime.Add(time.Hour)),
		}
		for _, f := range change {
			f(i)
		}
		return i
	}
	used := func(i *statev1.Invitation) {
		i.Redemption = &statev1.InvitationRedemption{Time: some, Identities: [][]byte{us[:]}}
	}
	request := func(secret []byte, own, foreign string, clock time.Time) *ententev1.AcceptInvitationContent {
		return &ententev1.AcceptInvitationContent{
			Secret:              secret,
			InvitingTrustDomain: own,
			Offer:               &ententev1.FederationOffer{TrustDomain: foreign},
			Time:                timestamppb.New(clock),
		}
	}
	good := request(secret[:], "eu.example.org", "us.example.org", someTime)
	for name, c := range map[string]struct {
		row     *statev1.Invitation
		request *ententev1.AcceptInvitationContent
		signer  [32]byte
		now     time.Time
		again   bool
		name    string
		text    string
	}{
		"open": {row: row(), request: good, now: someTime},
		"none": {request: good, now: someTime, name: "unknown", text: "has no such invitation"},
		"wrong secret": {row: row(), request: request(make([]byte, 32), "eu.example.org", "us.example.org",
			someTime), now: someTime, name: "unknown", text: "has no such invitation"},
		"for another": {row: row(), request: request(secret[:], "eu.example.org", "asia.example.org",
			someTime), now: someTime, name: "other_domain", text: "is from eu.example.org for us.example.org"},
		"from another": {row: row(), request: request(secret[:], "asia.example.org", "us.example.org",
			someTime), now: someTime, name: "other_domain", text: "was not used"},
		"used by the same": {row: row(used), request: good, signer: us, now: someTime.Add(2 * time.Hour),
			again: true},
		"used by another": {row: row(used), request: good, signer: [32]byte{8}, now: someTime, name: "spent",
			text: "by another cluster"},
		"revoked": {row: row(func(i *statev1.Invitation) { i.RevokeTime = some }), request: good,
			now: someTime, name: "revoked", text: "was revoked at"},
		"expired": {row: row(), request: request(secret[:], "eu.example.org", "us.example.org",
			someTime.Add(time.Hour)), now: someTime.Add(time.Hour), name: "expired",
			text: "expired at 2026-05-01T13:00:00Z, by the clock of the cluster that created it, " +
				"where it is 2026-05-01T13:00:00Z now; request"},
		"expired, clocks apart": {row: row(), request: good, now: someTime.Add(2 * time.Hour), name: "expired",
			text: "the clocks of the two clusters are 2h0m0s apart"},
	} {
		again, err := redeemable(c.row, c.request, c.signer, c.now)
		require.Equal(t, c.again, again, name)
		if c.name == "" {
			require.NoError(t, err, name)
			continue
		}
		refusal, ok := errors.AsType[*refusedInvitation](err)
		require.True(t, ok, name)
		require.Equal(t, c.name, refusal.name, name)
		require.ErrorContains(t, err, c.text, name)
	}
}

// TestClockWarnings tests that only clocks that differ by more than the tolerance cause a warning.
func TestClockWarnings(t *testing.T) {
	require.Empty(t, clockWarnings(some, someTime.Add(30*time.Second)))
	require.Contains(t, clockWarnings(some, someTime.Add(time.Hour))[0], "1h0m0s ahead of the other")
	require.Contains(t, clockWarnings(some, someTime.Add(-time.Hour))[0], "1h0m0s behind the other")
}

// TestRefusedOffers tests that an offer is refused as a whole if any part of it is invalid.
func TestRefusedOffers(t *testing.T) {
	us, other := federationtest.NewAuthority(t, "us.example.org"), federationtest.NewAuthority(t, "shop.example.org")
	offer := func(change func(*ententev1.FederationOffer)) *ententev1.FederationOffer {
		o := &ententev1.FederationOffer{
			TrustDomain: "us.example.org", HomeTrustDomain: "us.example.org", Bundle: us.Bundle(t, 1).Marshal(),
			Urls:             []string{"https://us-1.example.org:7443/bundles/us.example.org"},
			Profile:          ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_SPIFFE,
			EndpointSpiffeId: "spiffe://us.example.org/entente/bundle-endpoint",
			PeerAddresses:    []string{"us-1.example.org:7440"}, Identities: [][]byte{make([]byte, 32)},
		}
		change(o)
		return o
	}
	all, err := relationshipsOf(
		offer(func(*ententev1.FederationOffer) {}), &statev1.RelationshipAgreement{Id: "a"}, false, time.Now(),
	)
	require.NoError(t, err)
	require.Len(t, all, 1)
	require.False(t, all[0].rel.InForce)
	all, err = relationshipsOf(offer(func(o *ententev1.FederationOffer) {
		o.TrustDomain, o.Bundle, o.HomeBundle, o.HomeUrls = "shop.example.org", other.Bundle(t, 1).
			Marshal(),
			o.GetBundle(), o.GetUrls()
	}), &statev1.RelationshipAgreement{Id: "a"}, false, time.Now())
	require.NoError(t, err)
	require.Len(t, all, 2)
	require.True(t, all[0].row.GetAgreement().GetLinkedHome())

	for text, change := range map[string]func(*ententev1.FederationOffer){
		"is not one of its home domain": func(o *ententev1.FederationOffer) {
			o.EndpointSpiffeId = "spiffe://eu.example.org/entente/bundle-endpoint"
		},
		"identity keys of 0 members": func(o *ententev1.FederationOffer) { o.Identities = nil },
		"it has no endpoint URL":     func(o *ententev1.FederationOffer) { o.Urls = nil },
		"url is refused":             func(o *ententev1.FederationOffer) { o.Urls[0] = "http://us-1.example.org/" },
		"profile is missing":         func(o *ententev1.FederationOffer) { o.Profile = 0 },
		"peer.addresses names":       func(o *ententev1.FederationOffer) { o.PeerAddresses[0] = "us-1" },
		"it has no X.509 authority":  func(o *ententev1.FederationOffer) { o.Bundle = nil },
		"bootstrap_bundle of":        func(o *ententev1.FederationOffer) { o.Bundle = []byte("{") },
		"100 KiB":                    nil,
		"127.0.0.1 is a loopback address, which only an operator can give": func(o *ententev1.FederationOffer) {
			o.Urls[0] = "https://127.0.0.1:7443/"
		},
		"169.254.169.254 is a link-local address": func(o *ententev1.FederationOffer) {
			o.PeerAddresses[0] = "169.254.169.254:80"
		},
		"its home domain": func(o *ententev1.FederationOffer) { o.HomeTrustDomain = "" },
	} {
		if change == nil {
			change, text = func(o *ententev1.FederationOffer) {
				o.Bundle = make([]byte,
					maxOfferedBundle+1)
			}, "the limit is 102400"
		}
		_, err := relationshipsOf(offer(change), &statev1.RelationshipAgreement{}, false, time.Now())
		require.ErrorContains(t, err, text)
	}
}

// TestSurviveRestore tests that open invitations are void after a restore, and that redeemed ones stay redeemed.
func TestSurviveRestore(t *testing.T) {
	r := newRoom(t)
	put := func(id string, i *statev1.Invitation) *raftstore.View {
		_, err := r.store.Update(t.Context(), func(tx *raftstore.Tx) error { return invitations.Put(tx, id, i) })
		require.NoError(t, err)
		return r.store.View()
	}
	put("open", &statev1.Invitation{})
	restored := put("used", &statev1.Invitation{})
	before := put("used", &statev1.Invitation{Redemption: &statev1.InvitationRedemption{Time: some}})
	_, err := r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		if err := invitations.Put(tx, "used", &statev1.Invitation{}); err != nil { // as a restore does
			return err
		}
		return SurviveRestore(before, restored, tx)
	})
	require.NoError(t, err)
	rows, err := invitations.List(r.store.View(), "")
	require.NoError(t, err)
	require.Len(t, rows, 1)
	require.NotNil(t, rows[0].Value.GetRedemption())
}

// TestEndpointsSurviveRestore tests that the endpoints of members are those of the present members after a restore, and
// that they do not keep a new cluster from adopting a snapshot.
func TestEndpointsSurviveRestore(t *testing.T) {
	r := newRoom(t)
	put := func(rows ...string) *raftstore.View {
		_, err := r.store.Update(t.Context(), func(tx *raftstore.Tx) error {
			for _, id := range []string{"eu-1", "eu-2"} {
				if err := endpoints.Delete(tx, id); err != nil {
					return err
				}
			}
			for _, row := range rows {
				id, address, _ := strings.Cut(row, " ")
				if err := endpoints.Put(tx, id, &statev1.MemberEndpoint{Advertised: []string{address}}); err != nil {
					return err
				}
			}
			return nil
		})
		require.NoError(t, err)
		return r.store.View()
	}
	before := put("eu-1 new:7443")
	restored := put("eu-1 old:7443", "eu-2 gone:7443")
	_, err := r.store.Update(t.Context(), func(tx *raftstore.Tx) error { return SurviveRestore(before, restored, tx) })
	require.NoError(t, err)
	rows, err := endpoints.List(r.store.View(), "")
	require.NoError(t, err)
	require.Len(t, rows, 1)
	require.Equal(t, "eu-1", rows[0].Key)
	require.Equal(t, []string{"new:7443"}, rows[0].Value.GetAdvertised())
	require.True(t, Founded(before, endpoints.Name(), "eu-1"))
	require.False(t, Founded(before, invitations.Name(), "eu-1"))
}

// someTime is the current time in tests of rules, and some the same as a timestamp.
var (
	someTime = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	some     = timestamppb.New(someTime)
)

// mustGet returns the row of a relationship that exists.
func mustGet(t testing.TB, v *raftstore.View, name string) *statev1.Relationship {
	t.Helper()
	row, found, err := relationship.Relationships.Get(v, name)
	require.NoError(t, err)
	require.True(t, found)
	return row.Value
}
