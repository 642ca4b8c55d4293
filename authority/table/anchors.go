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

// UpstreamAnchors are the anchors of the upstreams of hosted domains, and the successors of the roots of members.
var UpstreamAnchors = raftstore.NewTable[*statev1.UpstreamAnchor]("upstream_anchors", raftstore.RecordsNow)

// AnchorKey returns the key of an anchor of a domain in every table of anchors.
func AnchorKey(td string, der []byte) string {
	sum := sha256.Sum256(der)
	return DomainPrefix(td) + hex.EncodeToString(sum[:])
}

// ListUpstreamAnchors returns the rows of a domain.
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

// PublishedAnchors returns the anchors that belong into the bundle whether or not an authority is below them, in DER:
// those of the domain's upstream, and the successors of roots.
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

// AnchorPublished reports whether an anchor of the domain's upstream is in the bundle.
func AnchorPublished(r raftstore.Reader, td string, der []byte) (bool, error) {
	row, ok, err := UpstreamAnchors.Get(r, AnchorKey(td, der))
	return ok && row.Value.GetPublished(), err
}

// HasNoAnchor reports whether nothing verifies X509-SVIDs of a domain yet.
func HasNoAnchor(r raftstore.Reader, td string) (bool, error) {
	published, err := PublishedAnchors(r, td)
	if err != nil || len(published) > 0 {
		return false, err
	}
	rows, err := ListAuthorities(r, td)
	return !slices.ContainsFunc(rows, func(row *statev1.Authority) bool { return len(row.GetAnchors()) > 0 }), err
}

// AnchorReady returns when every reader can know an anchor that is published now. It can lie in the past, if an
// authority below the anchor was published before.
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

// DeleteUpstreamAnchors deletes the upstream's anchors of a domain that is no longer hosted.
func DeleteUpstreamAnchors(tx *raftstore.Tx, td string) error {
	return DeleteRows(tx, UpstreamAnchors, td)
}

// KeepUpstreamAnchors keeps the upstream's anchors of a domain as they were before a restore: the current bundle
// verifies what is signed now, and approvals since the snapshot remain valid.
func KeepUpstreamAnchors(before *raftstore.View, tx *raftstore.Tx, td string) error {
	return RestoreRows(before, tx, UpstreamAnchors, td)
}
