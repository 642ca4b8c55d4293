package demo

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

const (
	// An SVID lives long enough for an election, and is renewed soon enough for a rotation to be seen to its end.
	svidTTL      = 20 * time.Second
	svidRenewal  = 2 * time.Second
	retryAfter   = 200 * time.Millisecond
	issueTimeout = 10 * time.Second
)

// workload is a process with an identity, as go-spiffe sees one: a source of its own SVID, and of the bundles that it
// verifies others by. Both come from its own region's cluster, and both are kept fresh.
type workload struct {
	id      spiffeid.ID
	region  *region
	bundles *x509bundle.Set

	mu   sync.Mutex
	svid *x509svid.SVID
}

var (
	_ x509svid.Source   = (*workload)(nil)
	_ x509bundle.Source = (*workload)(nil)
)

// newWorkload returns a workload that has its SVID and its bundles, and renews them until the world ends.
func (w *world) newWorkload(ctx context.Context, r *region, path string) (*workload, error) {
	p := &workload{id: spiffeid.RequireFromPath(r.domain, path), region: r, bundles: x509bundle.NewSet()}
	if err := p.issue(ctx); err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(context.Background())
	var loops sync.WaitGroup
	first := make(chan struct{})
	loops.Go(func() { p.followBundles(running, first) })
	loops.Go(func() { p.keepRenewing(running) })
	w.onClose(func() { stop(); loops.Wait() })
	select {
	case <-first:
		return p, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the bundles of %s: %w", p.id, context.Cause(ctx))
	}
}

// GetX509SVID returns the present SVID.
func (p *workload) GetX509SVID() (*x509svid.SVID, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.svid, nil
}

// GetX509BundleForTrustDomain returns the present bundle of a domain.
func (p *workload) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	return p.bundles.GetX509BundleForTrustDomain(td)
}

// issue asks the region's cluster for an SVID for a new key.
func (p *workload) issue(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, issueTimeout)
	defer cancel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make a key for %s: %w", p.id, err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return fmt.Errorf("make a signing request for %s: %w", p.id, err)
	}
	answer, err := ententev1.NewSVIDServiceClient(p.region.conn).IssueX509SVID(ctx, &ententev1.IssueX509SVIDRequest{
		SpiffeId: p.id.String(), Csr: csr, Ttl: durationpb.New(svidTTL),
	})
	if err != nil {
		return fmt.Errorf("issue an SVID for %s: %w", p.id, err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode the key of %s: %w", p.id, err)
	}
	svid, err := x509svid.ParseRaw(bytes.Join(answer.GetCertificates(), nil), pkcs8)
	if err != nil {
		return fmt.Errorf("read the SVID of %s: %w", p.id, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.svid = svid
	return nil
}

func (p *workload) keepRenewing(ctx context.Context) {
	wait := time.NewTimer(svidRenewal)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-wait.C:
		}
		// A failure leaves the present SVID, which lives on; the next attempt comes soon.
		if p.issue(ctx) == nil {
			wait.Reset(svidRenewal)
		} else {
			wait.Reset(retryAfter)
		}
	}
}

// followBundles keeps the bundles as the cluster has them, and closes first once it has any. A stream that breaks is
// opened again, at another member.
func (p *workload) followBundles(ctx context.Context, first chan<- struct{}) {
	wait := time.NewTicker(retryAfter)
	defer wait.Stop()
	for ctx.Err() == nil {
		stream, err := ententev1.NewBundleServiceClient(p.region.conn).WatchBundles(ctx, &ententev1.WatchBundlesRequest{})
		for err == nil {
			var m *ententev1.WatchBundlesResponse
			if m, err = stream.Recv(); err != nil {
				break
			}
			if err = p.take(m); err == nil && first != nil {
				close(first)
				first = nil
			}
		}
		select {
		case <-ctx.Done():
		case <-wait.C:
		}
	}
}

func (p *workload) take(m *ententev1.WatchBundlesResponse) error {
	for _, b := range m.GetChanged() {
		td, err := spiffeid.TrustDomainFromString(b.GetTrustDomain())
		if err != nil {
			return err
		}
		parsed, err := spiffebundle.Parse(td, b.GetDocument())
		if err != nil {
			return fmt.Errorf("read the bundle of %s: %w", td.Name(), err)
		}
		p.bundles.Add(parsed.X509Bundle())
	}
	for _, name := range m.GetDeleted() {
		td, err := spiffeid.TrustDomainFromString(name)
		if err != nil {
			return err
		}
		p.bundles.Remove(td)
	}
	return nil
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
