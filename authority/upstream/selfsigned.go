package upstream

import (
	"cmp"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/svid"
)

// SelfSigned is an upstream without any other system: it keeps a root of the member's own for each hosted domain,
// beside the keys of the authorities. A root signs in the first half of its life only, so that everything below it ends
// in time.
type SelfSigned struct {
	keys keys.Store
	ttl  time.Duration
}

// NewSelfSigned returns an upstream that keeps its roots in keys. Each root lives for ttl.
func NewSelfSigned(keys keys.Store, ttl time.Duration) *SelfSigned {
	return &SelfSigned{keys: keys, ttl: ttl}
}

type root struct {
	Name        string
	number      uint64
	key         crypto.Signer
	Certificate *x509.Certificate
}

// signsAt reports whether the root can sign: in the first half of its life. It can begin in the future if the clock
// that made it was ahead.
func (r root) signsAt(now time.Time) bool {
	c := r.Certificate
	return !now.Before(c.NotBefore) && now.Before(c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore)/2))
}

// RootPrefix begins the key names of roots, and no others.
const RootPrefix = "root-"

// rootPrefix begins the key names of a domain's roots. The name of a trust domain can be too long for a file name.
func rootPrefix(td spiffeid.TrustDomain) string {
	sum := sha256.Sum256([]byte(td.Name()))
	return fmt.Sprintf("%s%x-", RootPrefix, sum[:8])
}

// SignCA signs below the newest root. It makes a new root if the request requires one, or if the newest is past half of
// its life or refused.
func (s *SelfSigned) SignCA(ctx context.Context, r Request) (*Signed, error) {
	if s.ttl < 4*r.TTL {
		return nil, fmt.Errorf(
			"the root lives for %v, and a signing certificate for %v; raise root_ttl to four times ca_ttl", s.ttl,
			r.TTL)
	}
	if err := r.CSR.CheckSignature(); err != nil {
		return nil, fmt.Errorf("check the request for a signing certificate: %w", err)
	}
	roots, err := s.roots(ctx, r.TrustDomain)
	if err != nil {
		return nil, err
	}
	var top *root
	number := uint64(1)
	if len(roots) > 0 {
		top = &roots[len(roots)-1]
		number = top.number + 1
	}
	if top == nil || r.NewAnchor || !top.signsAt(r.Now) || (r.Refused != nil && r.Refused(top.Certificate)) {
		if top, err = s.newRoot(ctx, r.TrustDomain, number, r.Now); err != nil {
			return nil, err
		}
	}
	template, err := svid.CATemplate(r.TrustDomain, r.CSR.PublicKey, "Entente authority", r.Now, r.Now.Add(r.TTL), 0)
	if err != nil {
		return nil, err
	}
	if template.NotBefore.Before(top.Certificate.NotBefore) {
		template.NotBefore = top.Certificate.NotBefore
	}
	ca, err := svid.SignCertificate(template, top.Certificate, r.CSR.PublicKey, top.key, svid.LintCA(r.TrustDomain))
	if err != nil {
		return nil, fmt.Errorf("sign a signing certificate of %s: %w", r.TrustDomain, err)
	}
	return &Signed{Chain: []*x509.Certificate{ca}, Anchors: []*x509.Certificate{top.Certificate}}, nil
}

// newRoot makes a root. If the member stops in between, the root has a key and no certificate, and the next one reuses
// its name.
func (s *SelfSigned) newRoot(
	ctx context.Context, td spiffeid.TrustDomain, number uint64, now time.Time,
) (*root, error) {
	name := fmt.Sprintf("%s%d", rootPrefix(td), number)
	key, err := s.keys.Create(ctx, name)
	if err != nil {
		return nil, err
	}
	template, err := svid.CATemplate(td, key.Public(), "Entente root", now, now.Add(s.ttl), 1)
	if err != nil {
		return nil, err
	}
	certificate, err := svid.SignCertificate(template, template, key.Public(), key, svid.LintCA(td))
	if err != nil {
		return nil, fmt.Errorf("sign a root of %s: %w", td, err)
	}
	if err := s.keys.Certify(ctx, name, certificate); err != nil {
		return nil, err
	}
	return &root{name, number, key, certificate}, nil
}

// roots returns the roots of a domain, oldest first.
func (s *SelfSigned) roots(ctx context.Context, td spiffeid.TrustDomain) ([]root, error) {
	names, err := s.keys.Names(ctx)
	if err != nil {
		return nil, err
	}
	var roots []root
	for _, name := range names {
		digits, ok := strings.CutPrefix(name, rootPrefix(td))
		if !ok {
			continue
		}
		number, err := strconv.ParseUint(digits, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s%s among the keys is not a root of this program; move it elsewhere", name,
				keys.Suffix)
		}
		certificate, err := s.keys.Certificate(name)
		if err != nil {
			return nil, err
		}
		if certificate == nil {
			continue // it was not completed, and nothing is below it
		}
		key, err := s.keys.Signer(name)
		if err != nil {
			return nil, err
		}
		if err := svid.LintCA(td)(certificate); err != nil {
			return nil, fmt.Errorf("root %s%s is not one of %s: %w", name, keys.Suffix, td, err)
		}
		roots = append(roots, root{name, number, key, certificate})
	}
	slices.SortFunc(roots, func(a, b root) int { return cmp.Compare(a.number, b.number) })
	return roots, nil
}

// Prune deletes the roots that nothing is below any more.
func (s *SelfSigned) Prune(inUse func(*x509.Certificate) bool) error {
	ctx := context.Background() // these keys are local
	names, err := s.keys.Names(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasPrefix(name, RootPrefix) {
			continue
		}
		certificate, err := s.keys.Certificate(name)
		if err != nil {
			return err
		}
		if certificate != nil && inUse(certificate) {
			continue
		}
		if err := s.keys.Delete(ctx, name); err != nil {
			return err
		}
	}
	return nil
}
