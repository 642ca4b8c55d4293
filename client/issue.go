package client

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
)

// Issued is an X509-SVID as the cluster issued it.
type Issued struct {
	// SVID is the certificate with its intermediates, and its private key.
	SVID *x509svid.SVID
	// Authority is the ID of the authority that signed it.
	Authority string
	// Response is the response of the member.
	Response *ententev1.IssueX509SVIDResponse

	at     time.Time // when it was requested
	bundle *bundle.Bundle
}

// Issue issues one X509-SVID for a new P-256 key that is made in this process, and checks that the response is for that
// key and ID. It uses ID, TTL and DNSNames of cfg. [X509Source] does the same and renews.
func (c *Client) Issue(ctx context.Context, cfg X509SourceConfig) (*Issued, error) {
	return issue(ctx, c.SVIDs(), cfg)
}

// Bundle returns the bundle of the SVID's trust domain that came with it.
func (i *Issued) Bundle() *bundle.Bundle { return i.bundle }

func issue(ctx context.Context, svids ententev1.SVIDServiceClient, cfg X509SourceConfig) (*Issued, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	// The server uses only the key of the request.
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate signing request: %w", err)
	}
	request := &ententev1.IssueX509SVIDRequest{SpiffeId: cfg.ID.String(), Csr: csr, DnsNames: cfg.DNSNames}
	if cfg.TTL != 0 {
		request.Ttl = durationpb.New(cfg.TTL)
	}
	at := time.Now()
	response, err := svids.IssueX509SVID(ctx, request)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode the key: %w", err)
	}
	svid, err := x509svid.ParseRaw(bytes.Join(response.GetCertificates(), nil), pkcs8)
	if err != nil {
		return nil, fmt.Errorf("the member returned an SVID that is invalid or of another key: %w; report this as "+
			"a defect", err)
	}
	if svid.ID != cfg.ID {
		return nil, errors.New(
			"the member returned an SVID of another ID than " + cfg.ID.String() + ": report this as a defect",
		)
	}
	b, err := parseBundle(cfg.ID.TrustDomain().Name(), response.GetBundle())
	if err != nil {
		return nil, fmt.Errorf("read the bundle of %s: %w", cfg.ID.TrustDomain().Name(), err)
	}
	return &Issued{SVID: svid, Authority: response.GetAuthorityId(), Response: response, at: at, bundle: b}, nil
}

func (i *Issued) expiry() time.Time { return i.SVID.Certificates[0].NotAfter }

// renewal returns when to renew: after half of the lifetime that was left, or up to a tenth of that earlier, so that
// programs that start together do not renew together. drawn is between 0 and 1.
func (i *Issued) renewal(drawn float64) time.Time {
	life := i.expiry().Sub(i.at)
	return i.at.Add(life/2 - time.Duration(drawn*float64(life/10)))
}
