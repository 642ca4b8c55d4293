package issue

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/authority/upstream"
	"github.com/ententehq/entente/bundle"
	verifier "github.com/ententehq/entente/bundle/svid"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
)

// State is what this member signs from: the tables of one revision, parsed once. It is never modified.
type State struct {
	Revision raftstore.Revision
	Domains  map[spiffeid.TrustDomain]*Domain
}

// Domain is the part of a [State] that belongs to one hosted domain.
type Domain struct {
	// Bundle is nil until the domain's first authority is published. BundleChanged is the time of its last change.
	Bundle        *bundle.Bundle
	BundleChanged time.Time
	// Authorities are those of every member.
	Authorities []plan.Authority

	settings     plan.Settings
	endpointHost string
	issuer       string // of JWT-SVIDs; they have no issuer claim if it is empty
	document     []byte
	// keyIDs are the subject key identifiers of distrusted X.509 authorities.
	keyIDs map[string][]byte
	// signers are the newest active authorities of this member.
	signers map[plan.Kind]*signer
	// otherSigners are the other members that have an active authority.
	otherSigners map[plan.Kind][]string
}

// Signer returns the ID of the authority with which this member signs, or "" if it has none.
func (d *Domain) Signer(kind plan.Kind) string {
	if d == nil || d.signers[kind] == nil {
		return ""
	}
	return d.signers[kind].id
}

// signer is an active authority of this member with its key.
type signer struct {
	id       string
	td       spiffeid.TrustDomain
	key      crypto.Signer
	notAfter time.Time
	// ca and chain are those of an X.509 authority.
	ca    *x509.Certificate
	chain [][]byte
	// constrained is the path from ca to its anchor if it constrains the names of SVIDs, and otherwise empty.
	constrained []*x509.Certificate
	// header is the header of all tokens of a JWT authority.
	header string
}

// readState reads the tables. It reuses what before has parsed.
func (i *Issuer) readState(r raftstore.Reader, before *State) (*State, error) {
	next := &State{Revision: r.Revision(), Domains: map[spiffeid.TrustDomain]*Domain{}}
	for row, err := range table.Domains.All(r, "") {
		if err != nil {
			return nil, err
		}
		td, err := spiffeid.TrustDomainFromString(row.Key)
		if err != nil {
			return nil, err
		}
		if next.Domains[td], err = i.readDomain(r, td, row.Value, before.Domains[td]); err != nil {
			return nil, err
		}
	}
	return next, nil
}

func (i *Issuer) readDomain(
	r raftstore.Reader, td spiffeid.TrustDomain, row *statev1.Domain, before *Domain,
) (*Domain, error) {
	rows, err := table.ListAuthorities(r, td.Name())
	if err != nil {
		return nil, err
	}
	d := &Domain{
		settings: table.SettingsOf(row), endpointHost: row.GetEndpointHost(), issuer: row.GetOidcIssuer(),
		signers: map[plan.Kind]*signer{}, otherSigners: map[plan.Kind][]string{}, keyIDs: map[string][]byte{},
	}
	published, ok, err := table.HostedBundles.Get(r, td.Name())
	if err != nil {
		return nil, err
	}
	if ok {
		if d.Bundle, err = trust.Parse(published.Value); err != nil {
			return nil, err
		}
		d.document, d.BundleChanged = d.Bundle.Marshal(), published.Value.GetChangeTime().AsTime()
	}
	newest := map[plan.Kind]uint64{}
	for _, row := range rows {
		a := table.AuthorityOf(row)
		d.Authorities = append(d.Authorities, a)
		if a.State.Distrusted() && len(row.GetChain()) > 0 {
			ca, err := x509.ParseCertificate(row.GetChain()[0])
			if err != nil {
				return nil, fmt.Errorf("the certificate of authority %s: %w", a.ID, err)
			}
			d.keyIDs[a.ID] = ca.SubjectKeyId
		}
		switch {
		case a.State != plan.Active:
		case a.Member != i.config.Member:
			d.otherSigners[a.Kind] = append(d.otherSigners[a.Kind], a.Member)
		case d.signers[a.Kind] == nil || a.Number > newest[a.Kind]:
			newest[a.Kind] = a.Number
			d.signers[a.Kind] = i.signerOf(td, row, before)
		}
	}
	return d, nil
}

// signerOf returns the signer of an active authority of this member. If the member lacks the key, it logs that and
// returns nil; the reconcile loop retires the authority.
func (i *Issuer) signerOf(td spiffeid.TrustDomain, row *statev1.Authority, before *Domain) *signer {
	if before != nil {
		if s := before.signers[plan.Kind(row.GetKind())]; s != nil && s.id == row.GetId() {
			return s
		}
	}
	s, err := newSigner(i.config.Keys, td, row)
	if err != nil {
		i.config.Log.Error("cannot sign with an authority of this member", "trust_domain", td, "id", row.GetId(),
			"error", err)
		return nil
	}
	return s
}

func newSigner(store keys.Store, td spiffeid.TrustDomain, row *statev1.Authority) (*signer, error) {
	key, err := store.Signer(row.GetId())
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
	path, err := pathOf(row)
	if err != nil {
		return nil, fmt.Errorf("the certificates of authority %s: %w", s.id, err)
	}
	if err := verifier.CheckPath(path, td); err != nil {
		return nil, fmt.Errorf("authority %s: %w: %w", s.id, upstream.ErrUnusable, err)
	}
	s.ca = path[0]
	if slices.ContainsFunc(path, verifier.Constrained) {
		s.constrained = path
	}
	return s, nil
}

// pathOf returns the path from the certificate of an authority to its anchor.
func pathOf(row *statev1.Authority) ([]*x509.Certificate, error) {
	encoded := slices.Clone(row.GetChain())
	if len(row.GetAnchors()) > 0 {
		encoded = append(encoded, row.GetAnchors()[0])
	}
	var path []*x509.Certificate
	for _, raw := range encoded {
		cert, err := x509.ParseCertificate(raw)
		if err != nil {
			return nil, err
		}
		path = append(path, cert)
	}
	return path, nil
}

// lint returns the rules for an X509-SVID of the signer. The names of the request that a certificate above constrains
// are the fault of the request.
func (s *signer) lint(id spiffeid.ID) func(*x509.Certificate) error {
	rules := svid.LintLeaf(id, s.ca)
	return func(leaf *x509.Certificate) error {
		if err := rules(leaf); err != nil || len(s.constrained) == 0 {
			return err
		}
		if err := verifier.CheckNames(append([]*x509.Certificate{leaf}, s.constrained...)); err != nil {
			return status.Errorf(codes.InvalidArgument, "verifiers would refuse %s: %v; request other names, or have "+
				"the upstream's certificate replaced", id, err)
		}
		return nil
	}
}

// trusts reports whether an authority of the domain exists and is neither tainted nor revoked.
func (d *Domain) trusts(id string) bool {
	for _, a := range d.Authorities {
		if a.ID == id {
			return !a.State.Distrusted()
		}
	}
	return false
}

// ready reports whether this member has an active authority of the kind that does not expire within a second.
func (d *Domain) ready(kind plan.Kind, now time.Time) bool {
	s := d.signers[kind]
	return s != nil && now.Add(time.Second).Before(s.notAfter) && d.document != nil
}
