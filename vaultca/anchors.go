package vaultca

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"

	"github.com/hashicorp/vault/api"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/vaultca/vault"
)

// maxChain bounds the certificates of one answer.
const maxChain = 32

// Tops returns the self-signed certificates that an issuer's chain leads to, in the order of the chain: several if it
// is cross-signed, none if the root is not in chain, and the issuer itself if it is a root. Other certificates in chain
// are ignored.
func Tops(issuer *x509.Certificate, chain []*x509.Certificate) []*x509.Certificate {
	reached := []*x509.Certificate{issuer}
	for i := 0; i < len(reached); i++ {
		for _, parent := range chain {
			if !slices.ContainsFunc(reached, parent.Equal) && signed(parent, reached[i]) {
				reached = append(reached, parent)
			}
		}
	}
	return slices.DeleteFunc(reached, func(c *x509.Certificate) bool { return !selfSigned(c) })
}

func signed(parent, child *x509.Certificate) bool {
	return bytes.Equal(parent.RawSubject, child.RawIssuer) && child.CheckSignatureFrom(parent) == nil
}

func selfSigned(c *x509.Certificate) bool {
	return c.IsCA && signed(c, c)
}

// sameAnchors compares two sets.
func sameAnchors(a, b []*x509.Certificate) bool {
	return len(a) == len(b) &&
		!slices.ContainsFunc(a, func(c *x509.Certificate) bool { return !slices.ContainsFunc(b, c.Equal) })
}

// sharedWith returns another domain that has the key of one of these anchors.
func sharedWith(
	td spiffeid.TrustDomain,
	anchors []*x509.Certificate,
	all map[spiffeid.TrustDomain][]*x509.Certificate,
) (spiffeid.TrustDomain, bool) {
	for other, theirs := range all {
		for _, c := range theirs {
			if other != td && slices.ContainsFunc(anchors, func(a *x509.Certificate) bool {
				return bytes.Equal(a.RawSubjectPublicKeyInfo, c.RawSubjectPublicKeyInfo)
			}) {
				return other, true
			}
		}
	}
	return spiffeid.TrustDomain{}, false
}

// issuing is an issuer of a mount as Vault shows it.
type issuing struct {
	ref   string
	cert  *x509.Certificate
	chain []*x509.Certificate
}

// digest stands for the certificates.
func (i issuing) digest() [sha256.Size]byte {
	h := sha256.New()
	for _, cert := range append([]*x509.Certificate{i.cert}, i.chain...) {
		h.Write(cert.Raw)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// readIssuers reads the configured issuers of a mount.
func readIssuers(ctx context.Context, c *vault.Caller, m Mount) ([]issuing, error) {
	var all []issuing
	for _, ref := range m.issuers() {
		cert, chain, err := readIssuer(ctx, c, m, ref)
		if err != nil {
			return nil, err
		}
		all = append(all, issuing{ref, cert, chain})
	}
	return all, nil
}

// readAnchors returns the present anchors of a mount, and the issuers that they were found by, if they were.
func readAnchors(ctx context.Context, c *vault.Caller, m Mount) (anchors []*x509.Certificate, by []issuing, err error) {
	if m.AnchorsFile != "" {
		anchors, err = pinned(m.AnchorsFile)
		return anchors, nil, err
	}
	issuers, err := readIssuers(ctx, c, m)
	if err != nil {
		return nil, nil, err
	}
	for _, i := range issuers {
		tops := Tops(i.cert, i.chain)
		if len(tops) == 0 {
			return nil, nil, fmt.Errorf("issuer %s (%s) of mount %s: %w", i.ref, i.cert.Subject, m.Path,
				vault.ErrNoAnchor)
		}
		for _, top := range tops {
			if !slices.ContainsFunc(anchors, top.Equal) {
				anchors = append(anchors, top)
			}
		}
	}
	return anchors, issuers, nil
}

// pinned reads anchors from a file.
func pinned(path string) ([]*x509.Certificate, error) {
	raw, err := vault.ReadFile(path)
	if err != nil {
		return nil, err
	}
	anchors, err := parseCertificates(string(raw))
	if err != nil {
		return nil, fmt.Errorf("%w: anchors %s: %w", vault.ErrSecret, path, err)
	}
	for _, c := range anchors {
		if !selfSigned(c) {
			return nil, fmt.Errorf(
				"%w: anchors %s: %s is not the self-signed certificate of a CA",
				vault.ErrSecret,
				path,
				c.Subject,
			)
		}
	}
	return anchors, nil
}

// readIssuer reads an issuer and its chain, without a login.
func readIssuer(
	ctx context.Context,
	c *vault.Caller,
	m Mount,
	ref string,
) (*x509.Certificate, []*x509.Certificate, error) {
	secret, err := c.Anonymous(ctx, "read_issuer", func(ctx context.Context, client *api.Client) (*api.Secret, error) {
		return client.Logical().ReadWithContext(ctx, m.Path+"/issuer/"+ref+"/json")
	})
	if err == nil {
		var own, chain []*x509.Certificate
		if own, chain, err = parseSigned(secret); err == nil {
			return own[0], chain, nil
		}
	}
	return nil, nil, fmt.Errorf("read issuer %s of Vault mount %s: %w", ref, m.Path, err)
}

// parseSigned returns the certificate in a response of Vault, and its chain. There is exactly one certificate.
func parseSigned(secret *api.Secret) (own, chain []*x509.Certificate, err error) {
	text, ok := secret.Data["certificate"].(string)
	if !ok {
		return nil, nil, fmt.Errorf("%w: it holds no certificate", vault.ErrMalformed)
	}
	if own, err = parseCertificates(text); err != nil {
		return nil, nil, fmt.Errorf("%w: certificate: %w", vault.ErrMalformed, err)
	}
	if len(own) != 1 {
		return nil, nil, fmt.Errorf("%w: %d certificates where one belongs", vault.ErrMalformed, len(own))
	}
	switch list := secret.Data["ca_chain"].(type) {
	case nil:
	case []any:
		if len(list) > maxChain {
			return nil, nil, fmt.Errorf("%w: a chain of %d certificates; %d is the limit", vault.ErrMalformed,
				len(list), maxChain)
		}
		for _, entry := range list {
			text, _ := entry.(string)
			found, err := parseCertificates(text)
			if err != nil {
				return nil, nil, fmt.Errorf("%w: chain: %w", vault.ErrMalformed, err)
			}
			chain = append(chain, found...)
		}
	default:
		return nil, nil, fmt.Errorf("%w: the chain is no list", vault.ErrMalformed)
	}
	return own, chain, nil
}

// parseCertificates reads one to maxChain certificates in PEM, and nothing else.
func parseCertificates(text string) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	rest := []byte(text)
	for len(bytes.TrimSpace(rest)) > 0 {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("something that is no certificate in PEM, after %d certificates", len(all))
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		if all = append(all, c); len(all) > maxChain {
			return nil, fmt.Errorf("more than %d certificates", maxChain)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no certificate in PEM")
	}
	return all, nil
}
