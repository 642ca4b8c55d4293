package federation

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
)

// large is a bundle that is read, and does not fit into one command of the log.
func (a *authority) large(t testing.TB, sequence uint64) *bundle.Bundle {
	t.Helper()
	content := bundle.Content{X509Authorities: []*x509.Certificate{a.cert}, Sequence: &sequence, RefreshHint: a.hint}
	for range 200 {
		value, err := asn1.Marshal([]byte(rand.Text() + string(make([]byte, 2500))))
		require.NoError(t, err)
		template := &x509.Certificate{
			SerialNumber: serial(t), URIs: a.cert.URIs, NotBefore: a.cert.NotBefore, NotAfter: a.cert.NotAfter, IsCA: true, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageCertSign, ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, Value: value}},
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
		require.NoError(t, err)
		cert, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		content.X509Authorities = append(content.X509Authorities, cert)
	}
	b, err := bundle.New(a.td, content)
	require.NoError(t, err)
	require.Less(t, len(b.Marshal()), bundle.MaxDocumentBytes)
	require.Greater(t, len(b.Marshal()), 512<<10)
	return b
}

// TestABundleThatDoesNotFit: it is the peer's to mend, whichever way it comes, and what is stored goes on to count.
func TestABundleThatDoesNotFit(t *testing.T) {
	o := newOnlooker(t)
	o.relates(t)
	large := o.us.large(t, 2)
	o.endpoint.serve(large)
	require.Equal(t, "too_large", o.refresh(t, "us.example.org").GetLastResult())
	o.byStream(t, large)
	o.byStream(t, large) // the stream goes on
	o.byStream(t, o.us.bundle(t, 3))
	o.awaitSequence(t, "us.example.org", 3)
	require.Contains(t, o.ledger.said(), "refuse bundle us.example.org: too_large")
}

// TestAHubsWordThatDoesNotFit: one domain that is too large keeps none of the others out, on a stream as in a map.
func TestAHubsWordThatDoesNotFit(t *testing.T) {
	hub, ap := newAuthority(t, "hub.example.org"), newAuthority(t, "ap.example.org")
	t.Run("over a stream", func(t *testing.T) {
		o := newOnlooker(t)
		rel := spiffeRelationship(hub, newPeer(t, hub, hub.bundle(t, 1)))
		rel.Peer, rel.Hub = &ententev1.Peer{HomeTrustDomain: "hub.example.org"}, &ententev1.Hub{Take: []string{".example.org"}}
		o.create(t, rel, hub.bundle(t, 1))
		says := func(all ...*bundle.Bundle) {
			changes := &ententev1.PeerMapChanges{TrustDomain: "hub.example.org"}
			for _, b := range all {
				v, err := bundle.NewMapEntry(b)
				require.NoError(t, err)
				changes.Bundles = append(changes.Bundles, &ententev1.PeerBundle{TrustDomain: b.TrustDomain().Name(), Document: v.Document})
			}
			o.over(t, hub, &ententev1.PeerMessage{Content: &ententev1.PeerMessage_MapChanges{MapChanges: changes}})
		}
		says(o.us.large(t, 1), ap.bundle(t, 1)) // us.example.org comes behind ap.example.org
		o.awaitWord(t, "ap.example.org", 1)
		says(newAuthority(t, "aa.example.org").large(t, 1), o.us.bundle(t, 1))
		o.awaitWord(t, "us.example.org", 1)
		says(o.us.large(t, 2), ap.bundle(t, 2))
		o.awaitWord(t, "ap.example.org", 2)
		until(t, "the refusal", func() bool { return mustWord(t, o.room, "us.example.org").Row.Value.GetRefused() == "too_large" })
		_, sequence := o.word(t, "us.example.org")
		require.EqualValues(t, 1, sequence)
		require.Equal(t, Stale, o.trust(t, "us.example.org"), "what the hub confirmed of it is the past")
	})
	t.Run("in its map", func(t *testing.T) {
		r, us := newRoom(t), newAuthority(t, "us.example.org")
		p := newPeer(t, hub, hub.bundle(t, 1))
		p.serveMap(hub.bundle(t, 1), mapOf(t, us.bundle(t, 1)))
		r.takes(t, hub, p, ".example.org")
		r.refresh(t, "hub.example.org")
		large := us.large(t, 2)
		p.serveMap(hub.bundle(t, 1), mapOf(t, large, ap.bundle(t, 1), newAuthority(t, "zz.example.org").bundle(t, 1)))
		r.refresh(t, "hub.example.org")
		require.Equal(t, Fresh, r.trust(t, "ap.example.org"))
		require.Equal(t, Fresh, r.trust(t, "zz.example.org"))
		require.Equal(t, Stale, r.trust(t, "us.example.org"))
		require.Equal(t, "too_large", r.show(t, "us.example.org").GetLastResult())
		require.EqualValues(t, 1, r.show(t, "hub.example.org").GetHubStatus().GetRefused())
		before := r.store.View().Revision()
		r.refresh(t, "hub.example.org")
		require.Equal(t, before, r.store.View().Revision(), "the same refusal again writes nothing")

		p.serveMap(hub.bundle(t, 1), mapOf(t, us.bundle(t, 3)))
		r.refresh(t, "hub.example.org")
		require.Equal(t, Fresh, r.trust(t, "us.example.org"))
	})
}
