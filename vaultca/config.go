package vaultca

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Secret reads a secret at the moment when it is needed.
type Secret func() (string, error)

// Config says where Vault is, how to log in, and which mount belongs to which domain.
type Config struct {
	// Address is Vault's, https://HOST:PORT.
	Address string
	// Namespace is Vault Enterprise's; empty for none.
	Namespace string
	// CAFile holds what Vault's certificate is verified with, PEM; empty for the system's roots. It is read at each connection.
	CAFile string
	// ServerName is expected in Vault's certificate instead of the host of the address.
	ServerName string
	// Auth is how to log in.
	Auth Auth
	// Mounts are the PKI mounts of hosted domains, none of which shares its mount with another.
	Mounts map[spiffeid.TrustDomain]Mount
	// LongestSVID is the longest lifetime of an X509-SVID in a domain: a signing certificate covers two of them.
	LongestSVID func(spiffeid.TrustDomain) time.Duration

	Logger     hclog.Logger
	Registerer prometheus.Registerer // nil: no metrics
	Now        func() time.Time      // nil: time.Now

	// Timeout bounds one attempt of a call, RetryFor all attempts together; 10 s and 20 s if zero.
	Timeout, RetryFor time.Duration
	// PollInterval is the time between two looks at the anchors; 15 s if zero.
	PollInterval time.Duration
}

// Mount is one domain's place in Vault.
type Mount struct {
	// Path is the PKI mount's, without slashes at its ends.
	Path string
	// Issuers are references to issuers in the mount, by name or id. The first one signs, unless nothing may be signed below its
	// anchors, and then the next; the tops of all their chains are anchors. None: the mount's default issuer.
	Issuers []string
	// AnchorsFile holds the anchors, PEM, where Vault does not know the root; empty: they are found in Vault. It is read again with each look.
	AnchorsFile string
}

// issuers are the references to look at, the one that signs first.
func (m Mount) issuers() []string {
	if len(m.Issuers) == 0 {
		return []string{"default"}
	}
	return m.Issuers
}

const (
	defaultTimeout      = 10 * time.Second
	defaultRetryFor     = 20 * time.Second
	defaultPollInterval = 15 * time.Second // with the longest pause and one attempt's timeout, within the 30 s that a new anchor may take
	maxIssuers          = 8
)

var (
	// pathPattern is narrower than what Vault takes: no character that means something in a URL or a policy.
	pathPattern   = regexp.MustCompile(`^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$`)
	issuerPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)
)

// checkPath refuses a mount path that is not plain: dots alone would lead elsewhere.
func checkPath(what, path string) error {
	if !pathPattern.MatchString(path) || slices.ContainsFunc(strings.Split(path, "/"), func(s string) bool { return strings.Trim(s, ".") == "" }) {
		return fmt.Errorf("%s %q is no path of a Vault mount; use letters, digits, _ . - and / between them", what, path)
	}
	return nil
}

func checkIssuer(ref string) error {
	if !issuerPattern.MatchString(ref) {
		return fmt.Errorf("issuer %q is no reference to an issuer in Vault; use its name or its id", ref)
	}
	return nil
}

// Validate looks at what can be seen without asking Vault, and names everything that is wrong.
func (c Config) Validate() error {
	errs := []error{c.validateConnection()}
	if len(c.Mounts) == 0 {
		errs = append(errs, errors.New("no PKI mount is configured; set pki_mount"))
	}
	used := map[string]spiffeid.TrustDomain{}
	for _, td := range c.domains() {
		m := c.Mounts[td]
		errs = append(errs, checkPath("pki_mount of "+td.Name(), m.Path))
		if len(m.Issuers) > maxIssuers {
			errs = append(errs, fmt.Errorf("%d issuers of %s; %d is the limit", len(m.Issuers), td, maxIssuers))
		}
		for _, ref := range m.Issuers {
			errs = append(errs, checkIssuer(ref))
		}
		if other, taken := used[m.Path]; taken {
			errs = append(errs, fmt.Errorf("domains %s and %s both use the mount %s: whoever signs there could name anybody in either domain; give each a mount with a root of its own", other, td, m.Path))
		}
		used[m.Path] = td
	}
	return errors.Join(errs...)
}

// validateConnection looks at where Vault is and how to log in.
func (c Config) validateConnection() error {
	var errs []error
	if u, err := url.Parse(c.Address); err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.User != nil || u.RawQuery != "" {
		errs = append(errs, fmt.Errorf("address %q is not of the form https://HOST:PORT", c.Address))
	}
	if c.Namespace != "" {
		errs = append(errs, checkPath("namespace", strings.Trim(c.Namespace, "/")))
	}
	if c.Auth == nil {
		errs = append(errs, errors.New("no auth block; one of token, approle, kubernetes and cert is needed"))
	} else {
		errs = append(errs, c.Auth.validate())
	}
	return errors.Join(errs...)
}

// domains are those with a mount, in order.
func (c Config) domains() []spiffeid.TrustDomain {
	var all []spiffeid.TrustDomain
	for td := range c.Mounts {
		all = append(all, td)
	}
	slices.SortFunc(all, func(a, b spiffeid.TrustDomain) int { return cmp.Compare(a.Name(), b.Name()) })
	return all
}

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.LongestSVID == nil {
		c.LongestSVID = func(spiffeid.TrustDomain) time.Duration { return time.Hour }
	}
	c.Timeout = cmp.Or(c.Timeout, defaultTimeout)
	c.RetryFor = cmp.Or(c.RetryFor, defaultRetryFor)
	c.PollInterval = cmp.Or(c.PollInterval, defaultPollInterval)
	return c
}
