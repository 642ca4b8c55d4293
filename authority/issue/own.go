package issue

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

// ErrNoSVID is wrapped while the member has no valid SVID of a name: before its first one is signed, or after it
// expired without being renewed.
var ErrNoSVID = errors.New("this member has no valid SVID of that name yet")

// OwnSVIDs keeps the SVIDs of the member itself: that of the member, and those of the bundle endpoints that it serves.
// The SVIDs in the home domain are also in the key store, if that keeps secrets, so that a restarted member has them
// ([OwnSVIDs.Restore]). Its methods can be called from any goroutine.
type OwnSVIDs struct {
	issuer *Issuer

	mu   sync.RWMutex
	held map[spiffeid.ID]*OwnSVID
	// unsaved is set while an SVID of the home domain in held is not in the key store. Only Reconcile uses it.
	unsaved bool
}

// OwnSVID is an SVID of the member itself.
type OwnSVID struct {
	Certificate *tls.Certificate
	// Authority is the ID of the authority that signed it, and Renew the time of its renewal.
	Authority string
	Renew     time.Time
	// restored is set if it was signed before this start. Then it is due.
	restored bool
}

// NewOwnSVIDs returns an empty set; see [OwnSVIDs.Reconcile].
func NewOwnSVIDs(issuer *Issuer) *OwnSVIDs {
	return &OwnSVIDs{issuer: issuer, held: map[spiffeid.ID]*OwnSVID{}}
}

// Get returns the SVID of a name, or nil.
func (o *OwnSVIDs) Get(id spiffeid.ID) *OwnSVID {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.held[id]
}

func (o *OwnSVIDs) put(id spiffeid.ID, own *OwnSVID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.held[id] = own
}

// retain drops all SVIDs but those of the given names.
func (o *OwnSVIDs) retain(names []spiffeid.ID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	kept := map[spiffeid.ID]*OwnSVID{}
	for _, id := range names {
		if own, ok := o.held[id]; ok {
			kept[id] = own
		}
	}
	o.held = kept
}

// Member returns the SVID that this member presents to clients and to other clusters. Call it at each handshake, since
// it is renewed in time. [ErrNoSVID] is wrapped while there is none.
func (o *OwnSVIDs) Member() (*tls.Certificate, error) {
	id, err := svid.MemberID(o.issuer.config.Home, o.issuer.config.Member)
	if err != nil {
		return nil, err
	}
	return o.valid(id)
}

// Endpoint returns the SVID of a hosted domain's bundle endpoint, for the home domain and those with an endpoint host
// of their own. [ErrNoSVID] is wrapped while there is none.
func (o *OwnSVIDs) Endpoint(td spiffeid.TrustDomain) (*tls.Certificate, error) {
	id, err := svid.EndpointID(td)
	if err != nil {
		return nil, err
	}
	return o.valid(id)
}

func (o *OwnSVIDs) valid(id spiffeid.ID) (*tls.Certificate, error) {
	own := o.Get(id)
	if own == nil || !o.issuer.config.Now().Before(own.Certificate.Leaf.NotAfter) {
		return nil, fmt.Errorf("%s: %w", id, ErrNoSVID)
	}
	return own.Certificate, nil
}

// Reconcile renews what is due, and returns the time of the next renewal.
func (o *OwnSVIDs) Reconcile(ctx context.Context) (next time.Time, err error) {
	names, err := o.names()
	if err != nil || len(names) == 0 {
		return plan.Never, err
	}
	var errs []error
	for _, id := range names {
		at, err := o.renew(ctx, id)
		errs, next = append(errs, err), plan.Sooner(next, at)
	}
	o.retain(names)
	return next, errors.Join(append(errs, o.save())...)
}

// names returns the names that this member needs. There are none before the home domain exists.
func (o *OwnSVIDs) names() ([]spiffeid.ID, error) {
	home := o.issuer.config.Home
	var names []spiffeid.ID
	for td, d := range o.issuer.State().Domains {
		if td == home {
			id, err := svid.MemberID(td, o.issuer.config.Member)
			if err != nil {
				return nil, err
			}
			names = append(names, id)
		}
		if td == home || d.endpointHost != "" {
			id, err := svid.EndpointID(td)
			if err != nil {
				return nil, err
			}
			names = append(names, id)
		}
	}
	return names, nil
}

// renew replaces an SVID if its renewal is due, or if the authority that signed it is gone, tainted or revoked. It
// returns the time of the next renewal.
func (o *OwnSVIDs) renew(ctx context.Context, id spiffeid.ID) (time.Time, error) {
	config := &o.issuer.config
	d := o.issuer.State().Domains[id.TrustDomain()]
	if held := o.Get(id); held != nil && config.Now().Before(held.Renew) && d != nil && d.trusts(held.Authority) {
		return held.Renew, nil
	}
	key, err := keys.Generate()
	if err != nil {
		return plan.Never, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return plan.Never, fmt.Errorf("make a request for %s: %w", id, err)
	}
	request := &ententev1.IssueX509SVIDRequest{SpiffeId: id.String(), Csr: csr}
	signed, err := o.issuer.issueX509(ctx, request, "member "+config.Member,
		requester{member: config.Member})
	if err != nil {
		return plan.Never, fmt.Errorf("renew %s: %w", id, err)
	}
	if len(signed.GetCertificates()) == 0 {
		return plan.Never, fmt.Errorf("renew %s: the response contains no certificate", id)
	}
	leaf, err := x509.ParseCertificate(signed.GetCertificates()[0])
	if err != nil {
		return plan.Never, fmt.Errorf("renew %s: %w", id, err)
	}
	own := &OwnSVID{
		Certificate: &tls.Certificate{Certificate: signed.GetCertificates(), PrivateKey: key, Leaf: leaf},
		Authority:   signed.GetAuthorityId(), Renew: renewalOf(leaf, config.Now()),
	}
	o.put(id, own)
	o.unsaved = o.unsaved || id.MemberOf(config.Home)
	config.Log.Debug("renewed an SVID of this member", "spiffe_id", id, "authority", own.Authority, "until",
		leaf.NotAfter)
	return own.Renew, nil
}

// renewalOf returns when an SVID is renewed: at half of its remaining life, or up to a tenth of that life earlier,
// drawn from its serial number. NotBefore does not count: it lies in the past, for a short-lived SVID by more than half
// of its life.
func renewalOf(leaf *x509.Certificate, now time.Time) time.Time {
	life := leaf.NotAfter.Sub(now)
	sum := sha256.Sum256(leaf.SerialNumber.Bytes())
	early := life / 10 / (1 << 16) * time.Duration(binary.BigEndian.Uint16(sum[:]))
	return now.Add(life/2 - early)
}
