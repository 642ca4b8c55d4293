package vaultca

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sync/errgroup"

	"github.com/ententehq/entente/authority/upstream"
	"github.com/ententehq/entente/vaultca/vault"
)

// Upstream signs by Vault. Its methods can be called from any goroutine.
type Upstream struct {
	config  Config
	caller  *vault.Caller
	metrics *pkiMetrics

	mu      sync.Mutex
	anchors map[spiffeid.TrustDomain][]*x509.Certificate
	changed chan struct{}                              // closed when anchors change
	failing map[spiffeid.TrustDomain]map[string]string // by task; one line is logged when a failure begins
}

var _ upstream.Upstream = (*Upstream)(nil)

// New returns an upstream. It makes no call yet: a member starts while Vault is down.
func New(c Config) (*Upstream, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	caller, err := vault.Open(c.Config)
	if err != nil {
		return nil, err
	}
	m, err := newPKIMetrics(c.Registerer)
	if err != nil {
		return nil, err
	}
	return &Upstream{
		config: c, caller: caller, metrics: m,
		anchors: map[spiffeid.TrustDomain][]*x509.Certificate{}, changed: make(chan struct{}),
		failing: map[spiffeid.TrustDomain]map[string]string{},
	}, nil
}

// Caller returns the caller with the login, which a [transit.Store] can share. It is nil if u is nil.
func (u *Upstream) Caller() *vault.Caller {
	if u == nil {
		return nil
	}
	return u.caller
}

// Run keeps the login alive and the anchors known until ctx ends.
func (u *Upstream) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return u.caller.Keep(ctx) })
	for _, td := range u.config.domains() {
		group.Go(func() error {
			u.poll(ctx, td)
			return nil
		})
	}
	err := group.Wait()
	u.caller.Close()
	return err
}

// poll reads a domain's anchors again and again, and tries issuers that changed. Intervals differ by up to a tenth, so
// that members do not call at the same time.
func (u *Upstream) poll(ctx context.Context, td spiffeid.TrustDomain) {
	tried := map[string]trial{}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		m := u.config.Mounts[td]
		anchors, issuers, err := u.lookAt(ctx, td, m) // its outcome is in the log and in the metrics
		if err == nil && len(issuers) == 0 {
			issuers, err = readIssuers(ctx, u.caller, m)
		}
		if err == nil {
			u.try(ctx, td, anchors, issuers, tried)
		}
		interval := u.config.PollInterval
		early := rand.Int64N(int64(interval/10) + 1) //nolint:gosec // G404: spreads load, guards nothing
		timer.Reset(interval - time.Duration(early))
	}
}

// Anchors returns the newest known anchors of a domain, and a channel that is closed when the anchors of any domain
// change. Before the first successful read there are none.
func (u *Upstream) Anchors(td spiffeid.TrustDomain) ([]*x509.Certificate, <-chan struct{}) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]*x509.Certificate(nil), u.anchors[td]...), u.changed
}

// lookAt reads a domain's anchors and stores them, and returns them with the issuers that they were found by, if they
// were. Anchors of another domain are refused.
func (u *Upstream) lookAt(
	ctx context.Context, td spiffeid.TrustDomain, m Mount,
) ([]*x509.Certificate, []issuing, error) {
	wrap := func(err error) error { return fmt.Errorf("find the anchors of %s: %w", td, err) }
	anchors, issuers, err := readAnchors(
		vault.WithFailures(ctx, func(err error) { u.outcome(ctx, td, "anchors", wrap(err)) }),
		u.caller,
		m,
	)
	if err == nil {
		err = u.keepAnchors(td, anchors)
	}
	if err != nil {
		err = wrap(err)
	} else {
		u.metrics.looked.WithLabelValues(td.Name()).Set(float64(u.config.Now().Unix()))
	}
	u.outcome(ctx, td, "anchors", err)
	return anchors, issuers, err
}

func (u *Upstream) keepAnchors(td spiffeid.TrustDomain, anchors []*x509.Certificate) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if other, shared := sharedWith(td, anchors, u.anchors); shared {
		return fmt.Errorf("an anchor of %s is one of %s too: %w", td, other, vault.ErrSharedAnchor)
	}
	if sameAnchors(u.anchors[td], anchors) {
		return nil
	}
	if was := u.anchors[td]; len(was) > 0 {
		u.config.Logger.Info(
			"the anchors in Vault changed",
			"trust_domain",
			td.Name(),
			"before",
			subjects(was),
			"now",
			subjects(anchors),
		)
	}
	u.anchors[td] = anchors
	close(u.changed)
	u.changed = make(chan struct{})
	return nil
}

func subjects(all []*x509.Certificate) string {
	var names []string
	for _, c := range all {
		names = append(names, fmt.Sprintf("%s (serial %s)", c.Subject, serial(c.SerialNumber)))
	}
	return strings.Join(names, ", ")
}

// outcome logs one line when a domain's tasks begin to fail, or fail for another reason, and one when all of them work
// again.
func (u *Upstream) outcome(ctx context.Context, td spiffeid.TrustDomain, task string, err error) {
	if err != nil && ctx.Err() != nil {
		return // the end of this member, not a failure
	}
	u.metrics.task(td, task, err)
	began, ended := u.note(td, task, err)
	switch {
	case began:
		u.config.Logger.Error(
			"Vault is of no use at the moment; what is signed already stays valid, and it is tried again",
			"task",
			task,
			"trust_domain",
			td.Name(),
			"reason",
			vault.Reason(err),
			"error",
			err,
		)
	case ended:
		u.config.Logger.Info("Vault works again", "trust_domain", td.Name())
	}
}

// note stores the outcome of a task. began reports a failure that no task of the domain had, ended the end of the last
// failure.
func (u *Upstream) note(td spiffeid.TrustDomain, task string, err error) (began, ended bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	failing := u.failing[td]
	if failing == nil {
		failing = map[string]string{}
		u.failing[td] = failing
	}
	if err == nil {
		_, was := failing[task]
		delete(failing, task)
		return false, was && len(failing) == 0
	}
	reason := vault.Reason(err)
	began = true
	for _, known := range failing {
		began = began && known != reason
	}
	failing[task] = reason
	return began, false
}

// SignCA implements [upstream.Upstream]. The anchors are read first, so that the answer has the newest.
func (u *Upstream) SignCA(ctx context.Context, r upstream.Request) (*upstream.Signed, error) {
	m, ok := u.config.Mounts[r.TrustDomain]
	if !ok {
		return nil, fmt.Errorf("sign a signing certificate of %s: %w", r.TrustDomain, vault.ErrNoMount)
	}
	wrap := func(err error) error {
		return fmt.Errorf(
			"sign a signing certificate of %s by Vault mount %s, issuer %s: %w",
			r.TrustDomain,
			m.Path,
			strings.Join(m.issuers(), " or "),
			err,
		)
	}
	signed, err := u.sign(vault.WithFailures(ctx, func(err error) {
		u.outcome(ctx, r.TrustDomain, "sign", wrap(err))
		if r.Failed != nil {
			r.Failed(wrap(err))
		}
	}), m, r)
	if err != nil {
		err = wrap(err)
	}
	u.outcome(ctx, r.TrustDomain, "sign", err)
	return signed, err
}

func (u *Upstream) sign(ctx context.Context, m Mount, r upstream.Request) (*upstream.Signed, error) {
	anchors, _, err := u.lookAt(ctx, r.TrustDomain, m)
	if err != nil {
		return nil, err
	}
	issuer, err := pick(ctx, u.caller, m, r.Refused)
	if err != nil {
		return nil, err
	}
	secret, err := signIntermediate(ctx, u.caller, m, issuer, signParameters(r.TrustDomain, r.CSR, r.TTL))
	if err != nil {
		return nil, err
	}
	own, chain, err := parseSigned(secret)
	if err != nil {
		return nil, err
	}
	signed, warnings, err := Examine(Request{
		TrustDomain: r.TrustDomain, Key: r.CSR.PublicKey, TTL: r.TTL, LongestSVID: u.config.LongestSVID(r.TrustDomain),
		Now: u.config.Now(), Anchors: anchors,
	}, own[0], chain)
	if err != nil {
		return nil, err
	}
	u.metrics.setAlarms(r.TrustDomain, warnings)
	log := u.config.Logger.With(
		"trust_domain",
		r.TrustDomain.Name(),
		"mount",
		m.Path,
		"serial",
		serial(own[0].SerialNumber),
	)
	if warnings.Short > 0 {
		log.Warn(
			"Vault gave the signing certificate less lifetime than requested; raise the mount's max_lease_ttl, or "+
				"renew its CA",
			"requested",
			r.TTL,
			"until",
			own[0].NotAfter,
		)
	}
	if warnings.Ahead > 0 {
		log.Warn(
			"the signing certificate begins in the future: Vault's clock is ahead of this member's; set both",
			"by",
			warnings.Ahead.Round(time.Second),
		)
	}
	return signed, nil
}

// backdating of signing certificates allows for clocks that differ a little.
const backdating = 30 * time.Second

// pathLength of a signing certificate: it signs SVIDs, and no CA below it.
const pathLength = "0"

// commonName is the subject of signing certificates. SPIFFE ignores it, and Vault requires one.
const commonName = "Entente authority"

// signParameters returns all parameters of a signature. [Policies] pins those that a thief of the token would change.
// They are strings, since Vault compares types too.
func signParameters(td spiffeid.TrustDomain, csr *x509.CertificateRequest, ttl time.Duration) map[string]any {
	return map[string]any{
		"csr":                  string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr.Raw})),
		"common_name":          commonName,
		"exclude_cn_from_sans": true,
		"uri_sans":             td.IDString(),
		"max_path_length":      pathLength,
		"ttl":                  fmt.Sprintf("%ds", int64(ttl.Seconds())),
		"not_before_duration":  fmt.Sprintf("%ds", int64(backdating.Seconds())),
		"use_csr_values":       false,
	}
}

// pick returns the issuer to sign: the first whose chain leads to an anchor that is not refused. Without
// such an issuer it is the first in the list, whose certificate is then rejected with the reason.
func pick(ctx context.Context, c *vault.Caller, m Mount, refused func(*x509.Certificate) bool) (string, error) {
	all := m.issuers()
	if len(all) == 1 || refused == nil || m.AnchorsFile != "" {
		return all[0], nil
	}
	for _, ref := range all {
		issuer, chain, err := readIssuer(ctx, c, m, ref)
		if err != nil {
			return "", err
		}
		if slices.ContainsFunc(Tops(issuer, chain), func(top *x509.Certificate) bool { return !refused(top) }) {
			return ref, nil
		}
	}
	return all[0], nil
}

func signIntermediate(
	ctx context.Context,
	c *vault.Caller,
	m Mount,
	issuer string,
	parameters map[string]any,
) (*api.Secret, error) {
	return c.Authorized(ctx, "sign", func(ctx context.Context, client *api.Client) (*api.Secret, error) {
		return client.Logical().WriteWithContext(ctx, m.Path+"/issuer/"+issuer+"/sign-intermediate", parameters)
	})
}

// Revoke puts a signing certificate of the domain on Vault's revocation list. SPIFFE verifiers do not read that list:
// SVIDs that the certificate signed stay valid for them until they expire.
func (u *Upstream) Revoke(ctx context.Context, td spiffeid.TrustDomain, certificate *x509.Certificate) error {
	m, ok := u.config.Mounts[td]
	if !ok {
		return fmt.Errorf("revoke a signing certificate of %s: %w", td, vault.ErrNoMount)
	}
	_, err := u.caller.Authorized(ctx, "revoke", func(ctx context.Context, client *api.Client) (*api.Secret, error) {
		return client.Logical().
			WriteWithContext(ctx, m.Path+"/revoke", map[string]any{"serial_number": serial(certificate.SerialNumber)})
	})
	if err != nil {
		return fmt.Errorf(
			"revoke the signing certificate %s of %s in Vault: %w",
			serial(certificate.SerialNumber),
			td,
			err,
		)
	}
	return nil
}

// serial returns a serial number in Vault's form.
func serial(n *big.Int) string {
	return strings.TrimSuffix(strings.ReplaceAll(fmt.Sprintf("% x", n.Bytes()), " ", ":"), ":")
}

// Prune implements [upstream.Upstream]. This package stores no roots.
func (*Upstream) Prune(func(*x509.Certificate) bool) error { return nil }
