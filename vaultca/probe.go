package vaultca

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/upstream"
	"github.com/ententehq/entente/bundle/svid"
	"github.com/ententehq/entente/vaultca/vault"
)

// probe has an issuer of a domain sign a certificate for a key that is discarded, and checks it as a member does before
// it signs with one: an X509-SVID below it is one that every verifier accepts.
func probe(
	ctx context.Context, caller *vault.Caller, c Config, td spiffeid.TrustDomain, issuer string,
	anchors []*x509.Certificate, ttl time.Duration,
) (Warnings, error) {
	csr, key, err := request()
	if err != nil {
		return Warnings{}, err
	}
	secret, err := signIntermediate(ctx, caller, c.Mounts[td], issuer, signParameters(td, csr, ttl))
	if err != nil {
		return Warnings{}, err
	}
	own, chain, err := parseSigned(secret)
	if err != nil {
		return Warnings{}, err
	}
	signed, warnings, err := Examine(Request{
		TrustDomain: td, Key: key.Public(), TTL: ttl, LongestSVID: c.LongestSVID(td), Now: c.Now(), Anchors: anchors,
	}, own[0], chain)
	if err != nil {
		return warnings, err
	}
	return warnings, c.prove(td, key, signed)
}

// prove checks what an issuer signed by a sample.
func (c Config) prove(td spiffeid.TrustDomain, key crypto.Signer, signed *upstream.Signed) error {
	sample, err := c.Sample(td)
	if err != nil {
		return err
	}
	_, err = upstream.Check(upstream.Candidate{
		TrustDomain: td, Key: key, Signed: signed, Now: c.Now(), LongestSVID: c.LongestSVID(td), Sample: sample,
	})
	var misfit *svid.Misfit
	switch {
	case errors.As(err, &misfit):
		return fmt.Errorf("%w: %w", vault.ErrUnfit, misfit)
	case err != nil:
		return fmt.Errorf("%w: %w", vault.ErrUnfit, err)
	}
	return nil
}

// request returns a certificate request for a key that is discarded.
func request() (*x509.CertificateRequest, crypto.Signer, error) {
	key, err := keys.Generate()
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, nil, err
	}
	csr, err := x509.ParseCertificateRequest(der)
	return csr, key, err
}

// verdicts are the failures of a probe for which the issuer is to blame. All others are those of a call.
var verdicts = []error{
	vault.ErrUnfit, vault.ErrNotCA, vault.ErrNoChain, vault.ErrTooShort, vault.ErrWrongKey, vault.ErrWrongName,
}

// probeMargin is the time that a certificate of a probe lives for beyond what a member needs: the call takes some of
// it.
const probeMargin = time.Minute

// trial is the outcome of a probe of an issuer with the certificates that were seen then.
type trial struct {
	seen    [sha256.Size]byte
	verdict error
}

// try probes the issuers of a domain whose certificates changed since tried, by reference, so that one that is of no
// use is known before a member needs its signature.
func (u *Upstream) try(
	ctx context.Context, td spiffeid.TrustDomain, anchors []*x509.Certificate, issuers []issuing,
	tried map[string]trial,
) {
	m := u.config.Mounts[td]
	var errs []error
	for _, i := range issuers {
		now := trial{seen: i.digest()}
		if before := tried[i.ref]; now.seen == before.seen {
			errs = append(errs, before.verdict)
			continue
		}
		_, err := probe(ctx, u.caller, u.config, td, i.ref, anchors, 2*u.config.LongestSVID(td)+probeMargin)
		switch {
		case slices.ContainsFunc(verdicts, func(verdict error) bool { return errors.Is(err, verdict) }):
			now.verdict = fmt.Errorf("try issuer %s of Vault mount %s for %s: %w", i.ref, m.Path, td, err)
		case err != nil && (vault.Transient(err) || ctx.Err() != nil):
			return // it is tried again; whatever else fails is reported by the signature that a member needs
		}
		tried[i.ref] = now
		errs = append(errs, now.verdict)
	}
	u.outcome(ctx, td, "issuer", errors.Join(errs...))
}
