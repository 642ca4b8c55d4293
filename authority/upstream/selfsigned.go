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

// SignCA signs below the newest root in use that can sign. Otherwise a reserved one takes over, or one that was made
// for a request which failed. It makes a new root if there is none, or if the request requires one.
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
	top := choose(roots, r)
	if top == nil {
		if top, err = s.newRoot(ctx, r, next(roots)); err != nil {
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

// choose returns the root to sign below, or nil if a new one has to be made. roots are the oldest first.
func choose(roots []root, r Request) *root {
	if r.NewAnchor {
		return nil
	}
	able := slices.DeleteFunc(slices.Clone(roots), func(x root) bool {
		return !x.signsAt(r.Now) || is(r.Refused, x.Certificate)
	})
	slices.Reverse(able)
	find := func(what func(*x509.Certificate) bool) int {
		return slices.IndexFunc(able, func(x root) bool { return is(what, x.Certificate) })
	}
	top := 0
	if i := find(r.InUse); i >= 0 {
		top = i
	} else if i := find(r.Reserved); i >= 0 {
		// The one before it signed until all that was below it had expired, and readers know it best.
		top = min(i+1, len(able)-1)
	}
	if len(able) == 0 {
		return nil
	}
	return &able[top]
}

// is returns what a predicate reports, or false if it is nil.
func is(predicate func(*x509.Certificate) bool, c *x509.Certificate) bool {
	return predicate != nil && predicate(c)
}

// next returns the number of the next root.
func next(roots []root) uint64 {
	if len(roots) == 0 {
		return 1
	}
	return roots[len(roots)-1].number + 1
}

// MakeRoot implements [RootMaker].
func (s *SelfSigned) MakeRoot(ctx context.Context, r Request) (*x509.Certificate, error) {
	roots, err := s.roots(ctx, r.TrustDomain)
	if err != nil {
		return nil, err
	}
	made, err := s.newRoot(ctx, r, next(roots))
	if err != nil {
		return nil, err
	}
	return made.Certificate, nil
}

// Roots implements [RootMaker].
func (s *SelfSigned) Roots(ctx context.Context, td spiffeid.TrustDomain) ([]*x509.Certificate, error) {
	roots, err := s.roots(ctx, td)
	if err != nil {
		return nil, err
	}
	certificates := make([]*x509.Certificate, len(roots))
	for i, r := range roots {
		certificates[i] = r.Certificate
	}
	return certificates, nil
}

// newRoot makes a root. If the member stops in between, the root has a key and no certificate, and the next one reuses
// its name.
func (s *SelfSigned) newRoot(
	ctx context.Context, r Request, number uint64,
) (*root, error) {
	td, now := r.TrustDomain, r.Now
	name := fmt.Sprintf("%s%d", rootPrefix(td), number)
	key, err := s.keys.Create(ctx, name)
	if err != nil {
		return nil, err
	}
	template, err := svid.CATemplate(td, key.Public(), "Entente root", now, now.Add(s.ttl), 1)
	if err != nil {
		return nil, err
	}
	if r.NameConstraints {
		// It is not critical, against RFC 5280, section 4.2.1.10, so that verifiers without URI constraints ignore it.
		template.PermittedURIDomains = []string{td.Name()}
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
