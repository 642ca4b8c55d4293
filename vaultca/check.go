package vaultca

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Severity says how bad a [Finding] is.
type Severity string

// The severities: what works, what works but is dangerous, and what keeps a member from signing.
const (
	OK      Severity = "ok"
	Warning Severity = "warning"
	Failure Severity = "failure"
)

// Finding is one thing that [Check] found out.
type Finding struct {
	Severity Severity
	// Subject is what was looked at: "login", or a trust domain with "anchors", "signing", "rights", "roles".
	Subject string
	// Detail is a sentence that says what is so, and what to do where something is wrong.
	Detail string
}

// checker collects findings.
type checker struct {
	config   Config
	caller   *caller
	findings []Finding
}

func (k *checker) add(s Severity, subject, format string, a ...any) {
	k.findings = append(k.findings, Finding{s, subject, fmt.Sprintf(format, a...)})
}

// prepare makes what a check calls Vault by, whose connections the caller closes; false: it cannot, which is among the findings.
func (k *checker) prepare(c Config) bool {
	m, err := newMetrics(nil)
	if err != nil {
		k.add(Failure, "configuration", "%v", err)
		return false
	}
	k.config, k.caller = c, newCaller(c, m)
	return true
}

// Check tries out what a configuration needs of Vault: the login, and for each domain its anchors, a signature, the
// limits of the token's rights, and the roles beside it. For the signature it has certificates signed for keys that it
// forgets. It changes nothing else.
func Check(ctx context.Context, c Config) []Finding {
	k := &checker{}
	if err := c.Validate(); err != nil {
		k.add(Failure, "configuration", "%v", err)
		return k.findings
	}
	c.Registerer = nil
	if !k.prepare(c.withDefaults()) {
		return k.findings
	}
	defer k.caller.transport.CloseIdleConnections()
	s, _, err := k.caller.session(ctx)
	if err != nil {
		k.add(Failure, "login", "%v", err)
	} else {
		k.login(ctx, s)
	}
	all := map[spiffeid.TrustDomain][]*x509.Certificate{}
	for _, td := range k.config.domains() {
		all[td] = k.anchors(ctx, td, all)
		if err == nil {
			k.signing(ctx, td, all[td])
			k.limits(ctx, td)
			k.roles(ctx, td)
		}
	}
	return k.findings
}

func (k *checker) login(ctx context.Context, s *session) {
	switch {
	case s.ttl == 0:
		k.add(Warning, "login", "logged in by %s with a token that never ends; use one that does, or another auth method", k.config.Auth.Method())
		return
	case !s.renewable && k.config.Auth.Method() == "token":
		k.add(Warning, "login", "logged in by token, which cannot be renewed and ends in %v; use a periodic token or another auth method", s.life)
		return
	case s.renewable:
		if _, err := k.caller.renew(ctx, s); err != nil {
			k.add(Warning, "login", "logged in by %s, but the login cannot be renewed: %v", k.config.Auth.Method(), err)
			return
		}
	}
	k.add(OK, "login", "logged in by %s, for %v", k.config.Auth.Method(), s.life)
}

func (k *checker) anchors(ctx context.Context, td spiffeid.TrustDomain, all map[spiffeid.TrustDomain][]*x509.Certificate) []*x509.Certificate {
	subject := td.Name() + " anchors"
	anchors, err := k.caller.look(ctx, k.config.Mounts[td])
	if err != nil {
		k.add(Failure, subject, "%v", err)
		return nil
	}
	if other, shared := sharedWith(td, anchors, all); shared {
		k.add(Failure, subject, "an anchor of %s is one of %s too: %v", td, other, ErrSharedAnchor)
	}
	for _, a := range anchors {
		if left := a.NotAfter.Sub(k.config.Now()); left < 30*24*time.Hour {
			k.add(Warning, subject, "%s ends on %s; make its successor now", a.Subject, a.NotAfter.UTC().Format(time.DateOnly))
		}
	}
	k.add(OK, subject, "%s", subjects(anchors))
	return anchors
}

// request makes a request for a key that nobody keeps.
func request() (*x509.CertificateRequest, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificateRequest(der)
}

// checkTTL is what is asked of Vault for a try.
const checkTTL = 24 * time.Hour

func (k *checker) signing(ctx context.Context, td spiffeid.TrustDomain, anchors []*x509.Certificate) {
	subject := td.Name() + " signing"
	csr, err := request()
	if err != nil {
		k.add(Failure, subject, "%v", err)
		return
	}
	secret, err := k.caller.signIntermediate(ctx, k.config.Mounts[td], k.config.Mounts[td].issuers()[0], signParameters(td, csr, checkTTL))
	if err != nil {
		k.add(Failure, subject, "%v", err)
		return
	}
	own, chain, err := answer(secret)
	if err != nil {
		k.add(Failure, subject, "%v", err)
		return
	}
	_, remark, err := Examine(Asked{
		TrustDomain: td, Key: csr.PublicKey, TTL: checkTTL, LongestSVID: k.config.LongestSVID(td), Now: k.config.Now(), Anchors: anchors,
	}, own[0], chain)
	switch {
	case err != nil:
		k.add(Failure, subject, "%v", err)
	case remark.Ahead > 0:
		k.add(Warning, subject, "Vault's clock is ahead of this one by some %v; set both", (remark.Ahead + backdating).Round(time.Second))
	case remark.Short > 0:
		k.add(Warning, subject, "asked for %v, Vault gives %v; raise the mount's max_lease_ttl, or renew its CA", checkTTL, (checkTTL - remark.Short).Round(time.Minute))
	default:
		k.add(OK, subject, "signs for %s", td.IDString())
	}
}

// limits asks for what the policy should deny: another name, and the request's own wishes.
func (k *checker) limits(ctx context.Context, td spiffeid.TrustDomain) {
	subject := td.Name() + " rights"
	s, _, err := k.caller.session(ctx)
	if err != nil {
		k.add(Failure, subject, "%v", err)
		return
	}
	tries := []struct{ parameter, what string }{
		{"uri_sans", "sign for other trust domains"},
		{"use_csr_values", "take names and usages from the request"},
	}
	tight := true
	for _, try := range tries {
		csr, err := request()
		if err != nil {
			k.add(Failure, subject, "%v", err)
			return
		}
		parameters := signParameters(td, csr, checkTTL)
		parameters["ttl"] = "1s" // of no use to anybody, should it be signed
		if try.parameter == "uri_sans" {
			parameters["uri_sans"] = "spiffe://entente-check.invalid"
		} else {
			parameters["use_csr_values"] = true
		}
		m := k.config.Mounts[td]
		_, err = k.caller.repeated(ctx, "check", s.client, func(ctx context.Context, client *api.Client) (*api.Secret, error) {
			return client.Logical().WriteWithContext(ctx, m.Path+"/issuer/"+m.issuers()[0]+"/sign-intermediate", parameters)
		})
		if !errors.Is(err, ErrDenied) {
			tight = false
			k.add(Warning, subject, "the token could %s, since its policies do not pin %s; use the output of `entente vault policy --mount %s`", try.what, try.parameter, m.Path)
		}
	}
	if tight {
		k.add(OK, subject, "the token can sign for %s and nothing else", td.IDString())
	}
}

// maxRoles bounds how many roles are looked at.
const maxRoles = 1000

func (k *checker) roles(ctx context.Context, td spiffeid.TrustDomain) {
	subject, m := td.Name()+" roles", k.config.Mounts[td]
	names, err := k.listRoles(ctx, m)
	if err != nil {
		k.add(Warning, subject, "cannot see which roles the mount has: %v", err)
		return
	}
	found := false
	for _, name := range names {
		secret, err := k.caller.authorized(ctx, "check", func(ctx context.Context, client *api.Client) (*api.Secret, error) {
			return client.Logical().ReadWithContext(ctx, m.Path+"/roles/"+name)
		})
		if err != nil {
			k.add(Warning, subject, "cannot read role %q: %v", name, err)
			return
		}
		if pattern, could := issuesSPIFFE(texts(secret.Data["allowed_uri_sans"]), td); could {
			found = true
			k.add(Warning, subject, "role %q in mount %s can issue SPIFFE IDs of %s beside Entente, since it allows the URI names %q; delete it, or narrow its allowed_uri_sans", name, m.Path, td, pattern)
		}
	}
	if !found {
		k.add(OK, subject, "none of %d roles in mount %s can issue SPIFFE IDs of %s", len(names), m.Path, td)
	}
}

func (k *checker) listRoles(ctx context.Context, m Mount) ([]string, error) {
	secret, err := k.caller.authorized(ctx, "check", func(ctx context.Context, client *api.Client) (*api.Secret, error) {
		secret, err := client.Logical().ListWithContext(ctx, m.Path+"/roles")
		if err == nil && secret == nil {
			secret = &api.Secret{} // so Vault says that there are none
		}
		return secret, err
	})
	if err != nil {
		return nil, err
	}
	names := texts(secret.Data["keys"])
	if len(names) > maxRoles {
		return nil, fmt.Errorf("there are %d, and %d is the limit", len(names), maxRoles)
	}
	return names, nil
}

// issuesSPIFFE says whether a role with these patterns for URI names can issue a SPIFFE ID of td, and by which. A star in a
// pattern stands for anything, a template for any text.
func issuesSPIFFE(patterns []string, td spiffeid.TrustDomain) (string, bool) {
	for _, p := range patterns {
		literal := p
		for _, open := range []string{"*", "{{"} {
			literal, _, _ = strings.Cut(literal, open)
		}
		id := td.IDString()
		whole := literal == p
		if p != "" && (strings.HasPrefix(literal, id+"/") || literal == id || !whole && strings.HasPrefix(id+"/", literal)) {
			return p, true
		}
	}
	return "", false
}

// texts are the strings of a list in an answer.
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

// Worst is the severity that decides the exit code of a command.
func Worst(findings []Finding) Severity {
	order := []Severity{OK, Warning, Failure}
	return slices.MaxFunc(append(findings, Finding{Severity: OK}), func(a, b Finding) int {
		return cmp.Compare(slices.Index(order, a.Severity), slices.Index(order, b.Severity))
	}).Severity
}
