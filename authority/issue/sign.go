package issue

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/access/audit"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
)

// audited makes a signature between its two lines in the audit log. Without the first line it is not made, and without
// the second it is not handed out.
func (i *Issuer) audited(kind plan.Kind, event audit.Event, sign func() error) error {
	event.Action = "sign " + kind.String() + "-svid"
	event.Withhold = true
	err := audit.Do(i.config.Audit, event, func(*audit.Event) error { return sign() })
	result := "ok"
	switch {
	case errors.Is(err, audit.ErrUnaudited):
		result = "unaudited"
	case err != nil:
		result = "failed"
	}
	i.signatures.WithLabelValues(kind.String(), result).Inc()
	return err
}

// signX509 signs an X509-SVID with the active authority of this member.
func (i *Issuer) signX509(d *Domain, r svid.X509Request, caller string) (*ententev1.IssueX509SVIDResponse, error) {
	ttl, err := lifetime(r.TTL, d.settings.X509SVIDTTL)
	if err != nil {
		return nil, err
	}
	s := d.signers[plan.X509]
	hosts, ips, err := MemberHost(i.config.Store.View(), i.config.Home, r.ID, i.config.DNSName)
	if err != nil {
		return nil, err
	}
	ttl = min(ttl, s.notAfter.Sub(i.config.Now())) // a certificate above it can end first
	leaf, err := svid.NewLeaf(r.ID, r.SPKI, append(hosts, r.DNSNames...), i.config.Now(), ttl, s.ca)
	if err != nil {
		return nil, err
	}
	leaf.IPs = ips
	serial := leaf.Serial.Text(16)
	event := audit.Event{
		Caller: caller, Object: r.ID.String(), Call: serial,
		Detail: fmt.Sprintf("authority %s, serial %s, key %s, until %s, DNS names %q",
			s.id, serial, svid.Fingerprint(r.SPKI), leaf.NotAfter.Format(time.RFC3339), r.DNSNames),
	}
	var certificate []byte
	err = i.audited(plan.X509, event, func() (err error) {
		certificate, err = leaf.Sign(s.ca, s.key, s.lint(r.ID))
		return err
	})
	if err != nil {
		return nil, err
	}
	i.config.Linter.Leaf(certificate)
	return &ententev1.IssueX509SVIDResponse{
		Certificates: append([][]byte{certificate}, s.chain...),
		ExpireTime:   timestamppb.New(leaf.NotAfter),
		Bundle:       d.document,
		AuthorityId:  s.id,
	}, nil
}

// signJWT signs a JWT-SVID with the active authority of this member.
func (i *Issuer) signJWT(d *Domain, r svid.JWTRequest, caller string) (*ententev1.IssueJWTSVIDResponse, error) {
	ttl, err := lifetime(r.TTL, d.settings.JWTSVIDTTL)
	if err != nil {
		return nil, err
	}
	s := d.signers[plan.JWT]
	now := i.config.Now().Truncate(time.Second)
	expire := now.Add(ttl)
	if end := s.notAfter.Truncate(time.Second); expire.After(end) {
		expire = end
	}
	var id [16]byte
	_, _ = rand.Read(id[:]) // it never fails: crypto/rand ends the program instead
	claims := jwt.Claims{
		ID: hex.EncodeToString(id[:]), Issuer: d.issuer, Subject: r.ID.String(), Audience: r.Audience,
		IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(expire),
	}
	event := audit.Event{
		Caller: caller, Object: r.ID.String(), Call: claims.ID,
		Detail: fmt.Sprintf("authority %s, jti %s, audience %q, until %s",
			s.id, claims.ID, r.Audience, expire.UTC().Format(time.RFC3339)),
	}
	var token string
	err = i.audited(plan.JWT, event, func() (err error) {
		if err := svid.LintClaims(claims, r.ID, s.notAfter); err != nil {
			return err
		}
		token, err = svid.SignToken(s.header, claims, s.key)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &ententev1.IssueJWTSVIDResponse{Token: token, ExpireTime: timestamppb.New(expire), AuthorityId: s.id}, nil
}
