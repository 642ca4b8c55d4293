package vaultca

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/vaultca/vault"
)

// pkiCheck checks the PKI mounts of a configuration.
type pkiCheck struct {
	vault.Checker
	config Config
}

// Check tries everything that a configuration needs of Vault: the login, and for each domain its anchors, a signature,
// the limits of the token's rights, and the roles beside it. The signed certificates are for keys that it discards. It
// changes nothing else.
func Check(ctx context.Context, c Config) []vault.Finding {
	k := &pkiCheck{}
	if err := c.Validate(); err != nil {
		k.Add(vault.Failure, "configuration", "%v", err)
		return k.Findings
	}
	k.config = c.withDefaults()
	if !k.Prepare(k.config.Config) {
		return k.Findings
	}
	defer k.Caller.Close()
	s, _, err := k.Caller.Session(ctx)
	if err != nil {
		k.Add(vault.Failure, "login", "%v", err)
	} else {
		k.Login(ctx, s)
	}
	all := map[spiffeid.TrustDomain][]*x509.Certificate{}
	for _, td := range k.config.domains() {
		all[td] = k.anchors(ctx, td, all)
		if err == nil && k.signing(ctx, td, all[td]) {
			k.limits(ctx, td)
			k.roles(ctx, td)
		}
	}
	return k.Findings
}

func (k *pkiCheck) anchors(
	ctx context.Context,
	td spiffeid.TrustDomain,
	all map[spiffeid.TrustDomain][]*x509.Certificate,
) []*x509.Certificate {
	subject := td.Name() + " anchors"
	anchors, _, err := readAnchors(ctx, k.Caller, k.config.Mounts[td])
	if err != nil {
		k.Add(vault.Failure, subject, "%v", err)
		return nil
	}
	if other, shared := sharedWith(td, anchors, all); shared {
		k.Add(vault.Failure, subject, "an anchor of %s is one of %s too: %v", td, other, vault.ErrSharedAnchor)
	}
	for _, a := range anchors {
		if left := a.NotAfter.Sub(k.config.Now()); left < 30*24*time.Hour {
			k.Add(
				vault.Warning,
				subject,
				"%s ends on %s; make its successor now",
				a.Subject,
				a.NotAfter.UTC().Format(time.DateOnly),
			)
		}
	}
	k.Add(vault.OK, subject, "%s", subjects(anchors))
	return anchors
}

// checkTTL is the lifetime of a certificate of a check.
const checkTTL = 24 * time.Hour

// signing probes each issuer that can sign. It returns false if Vault has no such mount or issuer, of which nothing
// more can be found out.
func (k *pkiCheck) signing(ctx context.Context, td spiffeid.TrustDomain, anchors []*x509.Certificate) bool {
	there := true
	for _, issuer := range k.config.Mounts[td].issuers() {
		there = !errors.Is(k.probe(ctx, td, issuer, anchors), vault.ErrNotFound) && there
	}
	return there
}

func (k *pkiCheck) probe(
	ctx context.Context, td spiffeid.TrustDomain, issuer string, anchors []*x509.Certificate,
) error {
	subject := td.Name() + " signing"
	if len(k.config.Mounts[td].issuers()) > 1 {
		subject += " by " + issuer
	}
	warnings, err := probe(ctx, k.Caller, k.config, td, issuer, anchors, checkTTL)
	switch {
	case err != nil:
		k.Add(vault.Failure, subject, "%v", err)
	case warnings.Ahead > 0:
		k.Add(
			vault.Warning,
			subject,
			"Vault's clock is ahead of this one by some %v; set both",
			(warnings.Ahead + backdating).Round(time.Second),
		)
	case warnings.Short > 0:
		k.Add(
			vault.Warning,
			subject,
			"requested %v, Vault gives %v; raise the mount's max_lease_ttl, or renew its CA",
			checkTTL,
			(checkTTL - warnings.Short).Round(time.Minute),
		)
	default:
		k.Add(vault.OK, subject, "signs for %s, and verifiers accept an X509-SVID below", td.IDString())
	}
	return err
}

// limits tries calls that the policy should deny: another name, and values from the request.
func (k *pkiCheck) limits(ctx context.Context, td spiffeid.TrustDomain) {
	subject := td.Name() + " rights"
	s, _, err := k.Caller.Session(ctx)
	if err != nil {
		k.Add(vault.Failure, subject, "%v", err)
		return
	}
	tries := []struct{ parameter, what string }{
		{"uri_sans", "sign for other trust domains"},
		{"use_csr_values", "take names and usages from the request"},
	}
	tight := true
	for _, try := range tries {
		csr, _, err := request()
		if err != nil {
			k.Add(vault.Failure, subject, "%v", err)
			return
		}
		parameters := signParameters(td, csr, checkTTL)
		parameters["ttl"] = "1s" // useless, should it be signed
		if try.parameter == "uri_sans" {
			parameters["uri_sans"] = "spiffe://entente-check.invalid"
		} else {
			parameters["use_csr_values"] = true
		}
		m := k.config.Mounts[td]
		_, err = k.Caller.Repeated(
			ctx,
			"check",
			s.Client,
			func(ctx context.Context, client *api.Client) (*api.Secret, error) {
				return client.Logical().
					WriteWithContext(ctx, m.Path+"/issuer/"+m.issuers()[0]+"/sign-intermediate", parameters)
			},
		)
		switch {
		case errors.Is(err, vault.ErrDenied):
		case err != nil:
			tight = false
			k.Add(vault.Warning, subject, "whether the token could %s is not known, since the attempt failed "+
				"otherwise: %v", try.what, err)
		default:
			tight = false
			k.Add(
				vault.Warning,
				subject,
				"the token could %s, since its policies do not pin %s; use the output of `entente vault policy "+
					"--mount %s`",
				try.what,
				try.parameter,
				m.Path,
			)
		}
	}
	if tight {
		k.Add(vault.OK, subject, "the token can sign for %s and nothing else", td.IDString())
	}
}

// maxRoles bounds the roles that are checked.
const maxRoles = 1000

func (k *pkiCheck) roles(ctx context.Context, td spiffeid.TrustDomain) {
	subject, m := td.Name()+" roles", k.config.Mounts[td]
	names, err := k.listRoles(ctx, m)
	if err != nil {
		k.Add(vault.Warning, subject, "cannot see which roles the mount has: %v", err)
		return
	}
	found := false
	for _, name := range names {
		secret, err := k.Caller.Authorized(
			ctx,
			"check",
			func(ctx context.Context, client *api.Client) (*api.Secret, error) {
				return client.Logical().ReadWithContext(ctx, m.Path+"/roles/"+name)
			},
		)
		if err != nil {
			k.Add(vault.Warning, subject, "cannot read role %q: %v", name, err)
			return
		}
		if pattern, could := issuesSPIFFE(texts(secret.Data["allowed_uri_sans"]), td); could {
			found = true
			k.Add(
				vault.Warning,
				subject,
				"role %q in mount %s can issue SPIFFE IDs of %s beside Entente, since it allows the URI names %q; "+
					"delete it, or narrow its allowed_uri_sans",
				name,
				m.Path,
				td,
				pattern,
			)
		}
	}
	if !found {
		k.Add(vault.OK, subject, "none of %d roles in mount %s can issue SPIFFE IDs of %s", len(names), m.Path, td)
	}
}

func (k *pkiCheck) listRoles(ctx context.Context, m Mount) ([]string, error) {
	secret, err := k.Caller.Authorized(
		ctx,
		"check",
		func(ctx context.Context, client *api.Client) (*api.Secret, error) {
			secret, err := client.Logical().ListWithContext(ctx, m.Path+"/roles")
			if err == nil && secret == nil {
				secret = &api.Secret{} // Vault's answer for an empty list
			}
			return secret, err
		},
	)
	if err != nil {
		return nil, err
	}
	names := texts(secret.Data["keys"])
	if len(names) > maxRoles {
		return nil, fmt.Errorf("there are %d, and %d is the limit", len(names), maxRoles)
	}
	return names, nil
}

// issuesSPIFFE reports whether a role with these patterns for URI names can issue a SPIFFE ID of td, and by which
// pattern. A star in a pattern matches anything, a template any text.
func issuesSPIFFE(patterns []string, td spiffeid.TrustDomain) (string, bool) {
	for _, p := range patterns {
		literal := p
		for _, open := range []string{"*", "{{"} {
			literal, _, _ = strings.Cut(literal, open)
		}
		id := td.IDString()
		whole := literal == p
		if p != "" &&
			(strings.HasPrefix(literal, id+"/") || literal == id || !whole && strings.HasPrefix(id+"/", literal)) {
			return p, true
		}
	}
	return "", false
}

// texts returns the strings of a list in an answer.
func texts(list any) []string {
	entries, _ := list.([]any)
	var all []string
	for _, e := range entries {
		if text, ok := e.(string); ok {
			all = append(all, text)
		}
	}
	return all
}
