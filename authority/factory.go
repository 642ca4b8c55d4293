package authority

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/anchor"
	"github.com/ententehq/entente/authority/issue"
	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/authority/upstream"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership"
)

// factory makes new authorities: the key, and for X.509 the CA certificate that the upstream signs.
type factory struct {
	member  string
	home    spiffeid.TrustDomain
	dnsName string
	// jwtKeyTTL is the lifetime of JWT authorities, unless that of signing certificates is longer.
	jwtKeyTTL time.Duration
	store     *raftstore.Store
	keys      keys.Store
	upstream  upstream.Upstream
	anchors   *anchor.Reconciler
	linter    *issue.Linter
	// failed is called for each failed attempt of the upstream while it still retries.
	failed func(ctx context.Context, td string, err error)
}

// make returns the row of a new authority whose key is stored. If it fails, it deletes the key.
func (f *factory) make(
	ctx context.Context, s plan.Situation, domain *statev1.Domain, action plan.Action,
) (*statev1.Authority, error) {
	td, err := spiffeid.TrustDomainFromString(domain.GetTrustDomain())
	if err != nil {
		return nil, err
	}
	row := &statev1.Authority{
		Id: newID(), TrustDomain: td.Name(), Member: f.member, Kind: statev1.AuthorityKind(action.Kind),
		State: statev1.AuthorityState_AUTHORITY_STATE_PREPARED,
	}
	key, err := f.keys.Create(ctx, row.GetId())
	if err != nil {
		return nil, err
	}
	if action.Kind == plan.JWT {
		row.NotBefore = timestamppb.New(s.Now)
		row.NotAfter = timestamppb.New(s.Now.Add(max(f.jwtKeyTTL, s.Settings.CATTL)))
		row.JwtKey, err = x509.MarshalPKIXPublicKey(key.Public())
		return row, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err == nil {
		err = f.certify(ctx, s, td, row, key, der, action.NewAnchor, domain.GetNameConstraints())
	} else {
		err = fmt.Errorf("make a request for a signing certificate: %w", err)
	}
	if err != nil {
		return nil, errors.Join(err, f.keys.Delete(ctx, row.GetId()))
	}
	return row, nil
}

// certify has the upstream sign a CA certificate for the request, checks it, and completes the row.
func (f *factory) certify(
	ctx context.Context, s plan.Situation, td spiffeid.TrustDomain, row *statev1.Authority, key crypto.Signer,
	request []byte, newAnchor, nameConstraints bool,
) error {
	csr, err := x509.ParseCertificateRequest(request)
	if err != nil {
		return fmt.Errorf("make a request for a signing certificate: %w", err)
	}
	refused, err := f.anchors.Refused(f.store.View(), td.Name())
	if err != nil {
		return err
	}
	inUse, reserved, err := f.roots(td.Name())
	if err != nil {
		return err
	}
	signed, err := f.upstream.SignCA(ctx, upstream.Request{
		TrustDomain: td, CSR: csr, Now: s.Now, TTL: s.Settings.CATTL, NewAnchor: newAnchor, Refused: refused,
		NameConstraints: nameConstraints, InUse: inUse, Reserved: reserved,
		Failed: func(err error) { f.failed(ctx, td.Name(), err) },
	})
	if err != nil {
		return err
	}
	sample, err := f.sample(td)
	if err != nil {
		return err
	}
	until, err := upstream.Check(upstream.Candidate{
		TrustDomain: td, Key: key, Signed: signed, Now: s.Now, LongestSVID: s.Settings.X509SVIDTTL, Sample: sample,
	})
	if err != nil {
		return err
	}
	if err := f.anchors.Admit(ctx, td, signed.Anchors[0]); err != nil {
		return err
	}
	f.linter.CA(signed)
	_, row.UpstreamAnchor = f.upstream.(upstream.Revoker)
	// NotBefore does not count where it lies in the past: half of a short life would be over at once.
	row.NotBefore = timestamppb.New(latest(s.Now, signed.Chain[0].NotBefore))
	row.NotAfter = timestamppb.New(until)
	for _, c := range signed.Chain {
		row.Chain = append(row.Chain, c.Raw)
	}
	anchors := signed.Anchors
	if f.anchors.Source != nil {
		anchors = anchors[:1] // the others are published on their own, as long as the upstream lists them
	}
	for _, c := range anchors {
		row.Anchors = append(row.Anchors, c.Raw)
	}
	return nil
}

// roots returns functions that report which roots of this member are in use in a domain, and which are reserved.
func (f *factory) roots(td string) (inUse, reserved func(*x509.Certificate) bool, err error) {
	view := f.store.View()
	rows, err := table.ListAuthorities(view, td)
	if err != nil {
		return nil, nil, err
	}
	used, next := map[string]bool{}, map[string]bool{}
	for _, row := range rows {
		if row.GetMember() == f.member && len(row.GetAnchors()) > 0 {
			used[string(row.GetAnchors()[0])] = true
		}
	}
	successors, err := table.SuccessorsOf(view, td, f.member)
	if err != nil {
		return nil, nil, err
	}
	for _, s := range successors {
		next[string(s.Certificate.Raw)] = true
	}
	return func(c *x509.Certificate) bool { return used[string(c.Raw)] },
		func(c *x509.Certificate) bool { return next[string(c.Raw)] }, nil
}

// sample returns the names by which a CA certificate of a domain is tried, by the member's row.
func (f *factory) sample(td spiffeid.TrustDomain) (upstream.Sample, error) {
	row, _, err := membership.Members.Get(f.store.View(), f.member)
	if err != nil {
		return upstream.Sample{}, err
	}
	return upstream.SampleOf(td, f.home, f.member, row.Value.GetAddress(), f.dnsName)
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// newID returns 80 random bits in letters and digits, valid as a file name, a kid and a word on a command line.
func newID() string {
	var b [10]byte
	_, _ = rand.Read(b[:]) // it never fails: crypto/rand ends the program instead
	return strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
}
