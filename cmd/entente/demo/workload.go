package demo

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

// svidTTL is the lifetime of an SVID: at half of it, when it is renewed, it is still long enough for an election.
const svidTTL = 20 * time.Second

// workload is a process with an identity. Its SVID and the bundles that it verifies others by come from the agent of
// its region, by the SPIFFE Workload API.
type workload struct {
	*workloadapi.X509Source
	id     spiffeid.ID
	region *region
}

// newWorkload returns a workload that keeps its SVID and its bundles fresh until the world ends.
func (w *world) newWorkload(ctx context.Context, a *agent, path string) (*workload, error) {
	p := &workload{id: spiffeid.RequireFromPath(a.region.domain, path), region: a.region}
	if err := a.register(ctx, path); err != nil {
		return nil, err
	}
	// One process has all identities here, so that the source selects its own.
	own := func(all []*x509svid.SVID) *x509svid.SVID {
		for _, s := range all {
			if s.ID == p.id {
				return s
			}
		}
		return nil
	}
	var err error
	p.X509Source, err = workloadapi.NewX509Source(ctx, workloadapi.WithDefaultX509SVIDPicker(own),
		workloadapi.WithClientOptions(workloadapi.WithAddr("unix://"+a.socket())))
	if err != nil {
		return nil, fmt.Errorf("read the identity of %s from the agent: %w%s", p.id, err, a.lastLines())
	}
	w.onClose(func() { _ = p.Close() })
	err = poll(ctx, a.gone(), func(context.Context) (bool, error) { // those of other entries can arrive before
		_, err := p.GetX509SVID()
		return err == nil, err
	})
	if err != nil {
		return nil, fmt.Errorf("wait for the SVID of %s from the agent: %w%s", p.id, err, a.lastLines())
	}
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
