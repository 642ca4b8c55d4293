package anchor

import (
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/publish"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/raftstore"
)

// List returns the anchors of a domain as API messages, in the order of their key IDs: those in the bundle, and those
// that wait for approval.
func List(r raftstore.Reader, domain *statev1.Domain, now time.Time) ([]*ententev1.Anchor, error) {
	td := domain.GetTrustDomain()
	published, err := publish.HostedBundle(r, td)
	if err != nil {
		return nil, err
	}
	rows, err := table.ListAuthorities(r, td)
	if err != nil {
		return nil, err
	}
	upstreams, err := table.ListUpstreamAnchors(r, td)
	if err != nil {
		return nil, err
	}
	messages := map[string]*ententev1.Anchor{}
	add := func(cert *x509.Certificate, state ententev1.AnchorState) *ententev1.Anchor {
		sum := sha256.Sum256(cert.Raw)
		a := &ententev1.Anchor{
			TrustDomain: td, KeyId: svid.AnchorID(cert), Sha256: hex.EncodeToString(sum[:]),
			Subject:   cert.Subject.String(),
			NotBefore: timestamppb.New(cert.NotBefore), NotAfter: timestamppb.New(cert.NotAfter), State: state,
		}
		messages[string(cert.Raw)] = a
		return a
	}
	if published != nil {
		for _, cert := range published.X509Authorities() {
			add(cert, ententev1.AnchorState_ANCHOR_STATE_PUBLISHED)
		}
	}
	for _, row := range upstreams {
		a := messages[string(row.GetCertificate())]
		if a == nil {
			cert, err := parse(row)
			if err != nil {
				return nil, err
			}
			a = add(cert, ententev1.AnchorState_ANCHOR_STATE_PENDING)
		}
		a.Upstream, a.SuccessorOf = row.GetSuccessorOf() == "", row.GetSuccessorOf()
		a.SeenBy, a.SeenTime = row.GetSeenBy(), row.GetSeenTime()
		a.PublishTime, a.ReadyTime, a.UnlistedTime = row.GetPublishTime(), row.GetReadyTime(), row.GetUnlistedTime()
	}
	for _, row := range rows {
		if len(row.GetAnchors()) == 0 {
			continue
		}
		if a := messages[string(row.GetAnchors()[0])]; a != nil {
			a.Authorities++
			a.Upstream = a.Upstream || row.GetUpstreamAnchor()
		}
	}
	out := make([]*ententev1.Anchor, 0, len(messages))
	for _, a := range messages {
		a.Detail = detail(a, now)
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b *ententev1.Anchor) int {
		return cmp.Or(cmp.Compare(a.GetKeyId(), b.GetKeyId()), cmp.Compare(a.GetSha256(), b.GetSha256()))
	})
	return out, nil
}

// detail returns a sentence on what an anchor waits for, or why it is still listed.
func detail(a *ententev1.Anchor, now time.Time) string {
	switch {
	case a.GetState() == ententev1.AnchorState_ANCHOR_STATE_PENDING:
		return "It waits for approval ('entente authority approve'); nothing is signed below it."
	case a.GetUnlistedTime() != nil && a.GetAuthorities() > 0:
		return "The upstream no longer lists it; it stays until everything that was signed below it has expired."
	case a.GetUnlistedTime() != nil:
		return "The upstream no longer lists it, and nothing is below it; it will leave the bundle within minutes."
	case a.GetReadyTime() != nil && now.Before(a.GetReadyTime().AsTime()):
		return "Not every reader of the bundle may know it yet."
	case a.GetSuccessorOf() != "":
		return "It takes over from the present root of member " + a.GetSuccessorOf() + "; nothing is below it yet."
	}
	return ""
}
