package authority

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
)

// ErrNoSVID is wrapped while the member has no valid SVID of that name: before its first one is signed, or after nobody
// could renew it in time.
var ErrNoSVID = errors.New("this member has no valid SVID of that name yet")

// ownSVIDs are the SVIDs of the member itself. Their keys are in memory only.
type ownSVIDs struct {
	mu   sync.RWMutex
	held map[spiffeid.ID]*ownSVID
}

type ownSVID struct {
	certificate *tls.Certificate
	authority   string
	renew       time.Time
}

func (o *ownSVIDs) get(id spiffeid.ID) *ownSVID {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.held[id]
}

func (o *ownSVIDs) put(id spiffeid.ID, verified *ownSVID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.held == nil {
		o.held = map[spiffeid.ID]*ownSVID{}
	}
	o.held[id] = verified
}

// keep forgets all but the wanted.
func (o *ownSVIDs) keep(wanted []spiffeid.ID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	kept := map[spiffeid.ID]*ownSVID{}
	for _, id := range wanted {
		if verified, ok := o.held[id]; ok {
			kept[id] = verified
		}
	}
	o.held = kept
}

// MemberSVID returns the SVID by which this member is known to its clients and to other clusters. It is renewed in
// time; ask at each handshake. [ErrNoSVID] is wrapped while there is none.
func (m *Manager) MemberSVID() (*tls.Certificate, error) {
	id, err := svid.MemberID(m.config.Home, m.config.Member)
	if err != nil {
		return nil, err
	}
	return m.ownSVID(id)
}

// EndpointSVID returns the SVID of a hosted domain's bundle endpoint, for the home domain and those with an endpoint
// host of their own. [ErrNoSVID] is wrapped while there is none.
func (m *Manager) EndpointSVID(td spiffeid.TrustDomain) (*tls.Certificate, error) {
	id, err := svid.EndpointID(td)
	if err != nil {
		return nil, err
	}
	return m.ownSVID(id)
}

func (m *Manager) ownSVID(id spiffeid.ID) (*tls.Certificate, error) {
	verified := m.own.get(id)
	if verified == nil || !m.config.Now().Before(verified.certificate.Leaf.NotAfter) {
		return nil, fmt.Errorf("%s: %w", id, ErrNoSVID)
	}
	return verified.certificate, nil
}

// renewOwn keeps the member's own SVIDs fresh until ctx ends.
func (m *Manager) renewOwn(ctx context.Context) error {
	return m.tend(ctx, "renew this member's own SVIDs", func(ctx context.Context) (next time.Time, err error) {
		wanted, err := m.wanted()
		if err != nil {
			return plan.Never, err
		}
		var errs []error
		for _, id := range wanted {
			at, err := m.renew(ctx, id)
			errs, next = append(errs, err), plan.Sooner(next, at)
		}
		m.own.keep(wanted)
		return next, errors.Join(errs...)
	})
}

// wanted are the names that this member needs; none before the home domain is there.
func (m *Manager) wanted() ([]spiffeid.ID, error) {
	var wanted []spiffeid.ID
	for td, d := range m.signing.Load().domains {
		if td == m.config.Home {
			id, err := svid.MemberID(td, m.config.Member)
			if err != nil {
				return nil, err
			}
			wanted = append(wanted, id)
		}
		if td == m.config.Home || d.endpointHost != "" {
			id, err := svid.EndpointID(td)
			if err != nil {
				return nil, err
			}
			wanted = append(wanted, id)
		}
	}
	return wanted, nil
}

// renew replaces an own SVID if it is time to, or if what signed it is gone, tainted or revoked, and says when it next will be.
func (m *Manager) renew(ctx context.Context, id spiffeid.ID) (time.Time, error) {
	d := m.signing.Load().domains[id.TrustDomain()]
	if held := m.own.get(id); held != nil && m.config.Now().Before(held.renew) && d != nil && d.trusts(held.authority) {
		return held.renew, nil
	}
	key, err := keys.Generate()
	if err != nil {
		return plan.Never, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return plan.Never, fmt.Errorf("make a request for %s: %w", id, err)
	}
	member := m.config.Member
	signed, err := m.issueX509(ctx, &ententev1.IssueX509SVIDRequest{SpiffeId: id.String(), Csr: csr}, "member "+member, member)
	if err != nil {
		return plan.Never, fmt.Errorf("renew %s: %w", id, err)
	}
	if len(signed.GetCertificates()) == 0 {
		return plan.Never, fmt.Errorf("renew %s: the answer holds no certificate", id)
	}
	leaf, err := x509.ParseCertificate(signed.GetCertificates()[0])
	if err != nil {
		return plan.Never, fmt.Errorf("renew %s: %w", id, err)
	}
	now := m.config.Now()
	verified := &ownSVID{
		certificate: &tls.Certificate{Certificate: signed.GetCertificates(), PrivateKey: key, Leaf: leaf},
		authority:   signed.GetAuthorityId(), renew: renewalOf(leaf, now),
	}
	m.own.put(id, verified)
	m.log.Debug("renewed an SVID of this member", "spiffe_id", id, "authority", verified.authority, "until", leaf.NotAfter)
	return verified.renew, nil
}

// renewalOf is when an SVID is renewed: when half of the life that it has left now is over or up to a tenth of that earlier,
// drawn from its serial number. The moment that a certificate names as its beginning does not count: it lies in the past, for
// a short-lived one by more than half of its life.
func renewalOf(leaf *x509.Certificate, now time.Time) time.Time {
	life := leaf.NotAfter.Sub(now)
	sum := sha256.Sum256(leaf.SerialNumber.Bytes())
	early := life / 10 / (1 << 16) * time.Duration(binary.BigEndian.Uint16(sum[:]))
	return now.Add(life/2 - early)
}
