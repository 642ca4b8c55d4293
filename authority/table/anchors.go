package table

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/raftstore"
)

// upstreamAnchors are the anchors that the upstreams of hosted domains have.
var UpstreamAnchors = raftstore.NewTable[*statev1.UpstreamAnchor]("upstream_anchors")

// anchorKey is the key of an anchor of a domain, in every table of anchors.
func AnchorKey(td string, der []byte) string {
	sum := sha256.Sum256(der)
	return DomainPrefix(td) + hex.EncodeToString(sum[:])
}

// listUpstreamAnchors returns the rows of a domain.
func ListUpstreamAnchors(r raftstore.Reader, td string) ([]*statev1.UpstreamAnchor, error) {
	rows, err := UpstreamAnchors.List(r, DomainPrefix(td))
	if err != nil {
		return nil, fmt.Errorf("list the upstream's anchors of %s: %w", td, err)
	}
	out := make([]*statev1.UpstreamAnchor, len(rows))
	for i, row := range rows {
		out[i] = row.Value
	}
	return out, nil
}

// publishedAnchors are those of a domain's upstream that belong into the bundle, DER.
func PublishedAnchors(r raftstore.Reader, td string) ([][]byte, error) {
	rows, err := ListUpstreamAnchors(r, td)
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for _, row := range rows {
		if row.GetPublished() {
			out = append(out, row.GetCertificate())
		}
	}
	return out, nil
}

// anchorPublished says whether an anchor of the domain's upstream is in the bundle.
func AnchorPublished(r raftstore.Reader, td string, der []byte) (bool, error) {
	row, ok, err := UpstreamAnchors.Get(r, AnchorKey(td, der))
	return ok && row.Value.GetPublished(), err
}

// noAnchorYet says whether a domain has nothing yet that verifies its X509-SVIDs.
func HasNoAnchor(r raftstore.Reader, td string) (bool, error) {
	published, err := PublishedAnchors(r, td)
	if err != nil || len(published) > 0 {
		return false, err
	}
	rows, err := ListAuthorities(r, td)
	return !slices.ContainsFunc(rows, func(row *statev1.Authority) bool { return len(row.GetAnchors()) > 0 }), err
}

// anchorReady is when everybody can know an anchor that is published now: at once, or since long, if an authority below it
// brought it into the bundle before.
func AnchorReady(r raftstore.Reader, domain *statev1.Domain, der []byte, now time.Time) (time.Time, error) {
	rows, err := ListAuthorities(r, domain.GetTrustDomain())
	if err != nil {
		return plan.Never, err
	}
	ready := now.Add(SettingsOf(domain).Dissemination(now))
	for _, row := range rows {
		if len(row.GetAnchors()) == 0 || string(row.GetAnchors()[0]) != string(der) {
			continue
		}
		if known := TimeOf(row.GetReadyTime()); known.Before(ready) {
			ready = known
		}
	}
	return ready, nil
}

// forgetUpstreamAnchors removes what is known of the upstream of a domain that is hosted no more.
func ForgetUpstreamAnchors(tx *raftstore.Tx, td string) error {
	rows, err := UpstreamAnchors.List(tx, DomainPrefix(td))
	if err != nil {
		return err
	}
	for _, row := range rows {
		if err := UpstreamAnchors.Delete(tx, row.Key); err != nil {
			return err
		}
	}
	return nil
}

// keepUpstreamAnchors has a domain's anchors be as they were before a restore: what is in the bundle now verifies what is
// signed now, and what an operator approved since is approved.
func KeepUpstreamAnchors(before *raftstore.View, tx *raftstore.Tx, td string) error {
	if err := ForgetUpstreamAnchors(tx, td); err != nil {
		return err
	}
	rows, err := UpstreamAnchors.List(before, DomainPrefix(td))
	if err != nil {
		return err
	}
	for _, row := range rows {
		if err := UpstreamAnchors.Put(tx, row.Key, row.Value); err != nil {
			return err
		}
	}
	return nil
}
