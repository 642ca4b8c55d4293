package authority

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
)

// signingState is what this member signs from: the tables of one revision, parsed once. It is never changed.
type signingState struct {
	revision raftstore.Revision
	domains  map[spiffeid.TrustDomain]*domainState
}

type domainState struct {
	settings     plan.Settings
	rotations    plan.Rotations
	endpointHost string
	issuer       string // of JWT-SVIDs; empty: they have none
	// bundle is nil until the domain's first authority is published.
	bundle *bundle.Bundle
	// bundleChanged is when its content last did.
	bundleChanged time.Time
	document      []byte
	authorities   []plan.Authority
	// keyIDs are the subject key identifiers of X.509 authorities that are tainted or revoked.
	keyIDs map[string][]byte
	// signers are this member's active authorities.
	signers map[plan.Kind]*signer
	// elsewhere are the members that have an active authority, this one left out.
	elsewhere map[plan.Kind][]string
}

// signer is an active authority of this member with its key.
type signer struct {
	id       string
	td       spiffeid.TrustDomain
	key      crypto.Signer
	notAfter time.Time
	// X.509
	ca    *x509.Certificate
	chain [][]byte
	// JWT
	header string // of its tokens
}

// newSigningState reads the tables. What before has parsed already is taken over.
func (m *Manager) newSigningState(r raftstore.Reader, before *signingState) (*signingState, error) {
	next := &signingState{revision: r.Revision(), domains: map[spiffeid.TrustDomain]*domainState{}}
	for row, err := range table.Domains.All(r, "") {
		if err != nil {
			return nil, err
		}
		td, err := spiffeid.TrustDomainFromString(row.Key)
		if err != nil {
			return nil, err
		}
		if next.domains[td], err = m.newDomainState(r, td, row.Value, before.domains[td]); err != nil {
			return nil, err
		}
	}
	return next, nil
}

func (m *Manager) newDomainState(r raftstore.Reader, td spiffeid.TrustDomain, row *statev1.Domain, before *domainState) (*domainState, error) {
	rows, err := table.ListAuthorities(r, td.Name())
	if err != nil {
		return nil, err
	}
	d := &domainState{
		settings: table.SettingsOf(row), endpointHost: row.GetEndpointHost(), issuer: row.GetOidcIssuer(),
		signers: map[plan.Kind]*signer{}, elsewhere: map[plan.Kind][]string{}, keyIDs: map[string][]byte{},
	}
	if d.rotations, err = table.RotationsOf(r, td.Name()); err != nil {
		return nil, err
	}
	published, ok, err := table.HostedBundles.Get(r, td.Name())
	if err != nil {
		return nil, err
	}
	if ok {
		if d.bundle, err = trust.Parse(published.Value); err != nil {
			return nil, err
		}
		d.document, d.bundleChanged = d.bundle.Marshal(), published.Value.GetChangeTime().AsTime()
	}
	newest := map[plan.Kind]uint64{}
	for _, row := range rows {
		a := table.AuthorityOf(row)
		d.authorities = append(d.authorities, a)
		if a.State.Distrusted() && len(row.GetChain()) > 0 {
			ca, err := x509.ParseCertificate(row.GetChain()[0])
			if err != nil {
				return nil, fmt.Errorf("the certificate of authority %s: %w", a.ID, err)
			}
			d.keyIDs[a.ID] = ca.SubjectKeyId
		}
		switch {
		case a.State != plan.Active:
		case a.Member != m.config.Member:
			d.elsewhere[a.Kind] = append(d.elsewhere[a.Kind], a.Member)
		case d.signers[a.Kind] == nil || a.Number > newest[a.Kind]:
			newest[a.Kind] = a.Number
			d.signers[a.Kind] = m.signerOf(td, row, before)
		}
	}
	return d, nil
}

// signerOf returns the signer of an active authority of this member; nil, and a line in the log, where it has no key:
// its retirement is on the way.
func (m *Manager) signerOf(td spiffeid.TrustDomain, row *statev1.Authority, before *domainState) *signer {
	if before != nil {
		if s := before.signers[plan.Kind(row.GetKind())]; s != nil && s.id == row.GetId() {
			return s
		}
	}
	s, err := m.newSigner(td, row)
	if err != nil {
		m.log.Error("cannot sign with an authority of this member", "trust_domain", td, "id", row.GetId(), "error", err)
		return nil
	}
	return s
}

func (m *Manager) newSigner(td spiffeid.TrustDomain, row *statev1.Authority) (*signer, error) {
	key, err := m.keys.Signer(row.GetId())
	if err != nil {
		return nil, err
	}
	if public, ok := key.Public().(*ecdsa.PublicKey); !ok || public.Curve != elliptic.P256() {
		return nil, keys.ErrNotP256
	}
	s := &signer{id: row.GetId(), td: td, key: key, notAfter: table.TimeOf(row.GetNotAfter()), chain: row.GetChain()}
	if plan.Kind(row.GetKind()) == plan.JWT {
		s.header, err = svid.TokenHeader(s.id)
		return s, err
	}
	if len(s.chain) == 0 {
		return nil, fmt.Errorf("authority %s has no certificate", s.id)
	}
	if s.ca, err = x509.ParseCertificate(s.chain[0]); err != nil {
		return nil, fmt.Errorf("the certificate of authority %s: %w", s.id, err)
	}
	return s, nil
}

// trusts says whether an authority of the domain is still there, and neither tainted nor revoked.
func (d *domainState) trusts(id string) bool {
	for _, a := range d.authorities {
		if a.ID == id {
			return !a.State.Distrusted()
		}
	}
	return false
}
