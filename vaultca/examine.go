package vaultca

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/authority/upstream"
	verifier "github.com/ententehq/entente/bundle/svid"
	"github.com/ententehq/entente/vaultca/vault"
)

// Request has the values that a signed certificate is compared with.
type Request struct {
	TrustDomain spiffeid.TrustDomain
	Key         crypto.PublicKey
	TTL         time.Duration
	LongestSVID time.Duration
	Now         time.Time
	Anchors     []*x509.Certificate
}

// Warnings lists what is unexpected in a certificate that is still usable. It is zero if nothing is.
type Warnings struct {
	// Short is the missing part of the requested lifetime, by the local clock.
	Short time.Duration
	// Ahead is the time until the certificate begins: Vault's clock is ahead of the local one.
	Ahead time.Duration
}

// tolerance is the difference of a lifetime that is not reported: the time of the call, and whole seconds.
const tolerance = time.Minute

// Examine checks that a certificate is what was requested, and returns its chain to one of the anchors, that anchor
// first. An unusable certificate is refused with a sentinel of package vault.
func Examine(a Request, certificate *x509.Certificate, chain []*x509.Certificate) (*upstream.Signed, Warnings, error) {
	var warnings Warnings
	want, err := x509.MarshalPKIXPublicKey(a.Key)
	if err != nil {
		return nil, warnings, fmt.Errorf("encode the key of the request: %w", err)
	}
	switch {
	case !bytes.Equal(want, certificate.RawSubjectPublicKeyInfo):
		return nil, warnings, vault.ErrWrongKey
	case !certificate.IsCA || certificate.KeyUsage&x509.KeyUsageCertSign == 0:
		return nil, warnings, vault.ErrNotCA
	case len(certificate.URIs) != 1 || certificate.URIs[0].String() != a.TrustDomain.IDString():
		return nil, warnings, fmt.Errorf(
			"%w: %v instead of %s",
			vault.ErrWrongName,
			certificate.URIs,
			a.TrustDomain.IDString(),
		)
	}
	if err := svid.LintCA(a.TrustDomain)(certificate); err != nil {
		return nil, warnings, fmt.Errorf("%w: %w", vault.ErrNotCA, err)
	}
	left := certificate.NotAfter.Sub(a.Now)
	if left < 2*a.LongestSVID {
		return nil, warnings, fmt.Errorf(
			"%w: %v are left of %v, and two SVID lifetimes are %v",
			vault.ErrTooShort,
			left.Round(time.Second),
			a.TTL,
			2*a.LongestSVID,
		)
	}
	if short := a.TTL - left; short > tolerance {
		warnings.Short = short
	}
	at := a.Now
	if certificate.NotBefore.After(at) {
		at, warnings.Ahead = certificate.NotBefore, certificate.NotBefore.Sub(at)
	}
	path, err := toAnchor(certificate, chain, a.Anchors, a.TrustDomain, at)
	if err != nil {
		return nil, warnings, err
	}
	top := path[len(path)-1]
	signed := &upstream.Signed{Chain: path[:len(path)-1], Anchors: []*x509.Certificate{top}}
	for _, anchor := range a.Anchors {
		if !anchor.Equal(top) && a.Now.Before(anchor.NotAfter) {
			signed.Anchors = append(signed.Anchors, anchor)
		}
	}
	return signed, warnings, nil
}

// toAnchor returns the shortest path from the certificate to an anchor, both included. One that verifiers accept comes
// before one that they refuse.
func toAnchor(
	certificate *x509.Certificate,
	chain, anchors []*x509.Certificate,
	td spiffeid.TrustDomain,
	at time.Time,
) ([]*x509.Certificate, error) {
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, anchor := range anchors {
		roots.AddCert(anchor)
	}
	for _, c := range chain {
		if !selfSigned(c) {
			intermediates.AddCert(c)
		}
	}
	paths, err := certificate.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err == nil && len(paths) == 0 {
		err = errors.New("no path was found")
	}
	if err != nil {
		sent := slices.DeleteFunc(slices.Clone(chain), func(c *x509.Certificate) bool {
			return selfSigned(c) || c.Equal(certificate)
		})
		err = verifier.Explain(err, append([]*x509.Certificate{certificate}, sent...), anchors, td, at)
		if misfit := (*verifier.Misfit)(nil); errors.As(err, &misfit) {
			return nil, fmt.Errorf("%w: %w", vault.ErrUnfit, misfit)
		}
		return nil, fmt.Errorf("%w: %w", vault.ErrNoChain, err)
	}
	refused := func(path []*x509.Certificate) int {
		if verifier.CheckPath(path, td) != nil {
			return 1
		}
		return 0
	}
	best := slices.MinFunc(paths, func(a, b []*x509.Certificate) int {
		return cmp.Or(cmp.Compare(refused(a), refused(b)), cmp.Compare(len(a), len(b)))
	})
	if len(best) < 2 {
		return nil, fmt.Errorf("%w: it is an anchor itself", vault.ErrNoChain)
	}
	return best, nil
}
