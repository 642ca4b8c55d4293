package demo

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/ententehq/entente/client"
)

const (
	// An SVID lives long enough for an election, and is renewed soon enough for a rotation to be seen to its end.
	svidTTL     = 20 * time.Second
	svidRenewal = 2 * time.Second
)

// workload is a process with an identity. Its SVID and the bundles that it verifies others by come from the cluster of
// its own region.
type workload struct {
	*client.X509Source
	id     spiffeid.ID
	region *region
}

// newWorkload returns a workload that keeps its SVID and its bundles fresh until the world ends.
func (w *world) newWorkload(ctx context.Context, r *region, path string) (*workload, error) {
	p := &workload{id: spiffeid.RequireFromPath(r.domain, path), region: r}
	var err error
	p.X509Source, err = client.NewX509Source(ctx, r.conn, client.X509SourceConfig{
		ID: p.id, TTL: svidTTL, RenewAfter: svidRenewal,
	})
	if err != nil {
		return nil, err
	}
	w.onClose(func() { _ = p.Close() })
	return p, nil
}

// anchorOf returns the key ID of the root that certificates verify by, in the workload's bundles.
func (p *workload) anchorOf(certificates []*x509.Certificate) (string, error) {
	_, chains, err := x509svid.Verify(certificates, p)
	if err != nil {
		return "", err
	}
	root := chains[0][len(chains[0])-1]
	return hex.EncodeToString(root.SubjectKeyId), nil
}

// ownAnchor returns the key ID of the root of the workload's present SVID.
func (p *workload) ownAnchor() (string, error) {
	svid, err := p.GetX509SVID()
	if err != nil {
		return "", err
	}
	return p.anchorOf(svid.Certificates)
}

// short cuts a key ID to what people can compare.
func short(keyID string) string {
	const enough = 8
	return keyID[:min(enough, len(keyID))]
}
