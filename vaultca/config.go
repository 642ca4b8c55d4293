package vaultca

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/authority/upstream"
	"github.com/ententehq/entente/vaultca/vault"
)

// Config is the connection to Vault, and the mount of each domain.
type Config struct {
	vault.Config
	// Mounts are the PKI mounts of hosted domains, none of which shares its mount with another.
	Mounts map[spiffeid.TrustDomain]Mount
	// LongestSVID is the longest lifetime of an X509-SVID in a domain: a signing certificate covers two of them.
	LongestSVID func(spiffeid.TrustDomain) time.Duration
	// Sample returns the names of the X509-SVID by which what an issuer signed is tried. If nil, they are those of the
	// domain's bundle endpoint.
	Sample func(spiffeid.TrustDomain) (upstream.Sample, error)
	// PollInterval is the time between two looks at the anchors. It is 15 s if zero.
	PollInterval time.Duration
}

// Mount is the place of one domain in Vault.
type Mount struct {
	// Path is the path of the PKI mount, without slashes at its ends.
	Path string
	// Issuers are references to issuers in the mount, by name or id. The first one whose anchors are accepted signs.
	// The tops of all their chains are anchors. If empty, the mount's default issuer is used.
	Issuers []string
	// AnchorsFile has the anchors in PEM for a root that Vault does not have. If empty, they are read from Vault. The
	// file is read again each time.
	AnchorsFile string
}

// issuers returns the references, the one that signs first.
func (m Mount) issuers() []string {
	if len(m.Issuers) == 0 {
		return []string{"default"}
	}
	return m.Issuers
}

const (
	// with the longest pause and one attempt's timeout, within the 30 s that a new anchor may take
	defaultPollInterval = 15 * time.Second
	maxIssuers          = 8
)

var (
	issuerPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)
)

func checkIssuer(ref string) error {
	if !issuerPattern.MatchString(ref) {
		return fmt.Errorf("issuer %q is no reference to an issuer in Vault; use its name or its id", ref)
	}
	return nil
}

// Validate checks what can be checked without a call, and names everything that is wrong.
func (c Config) Validate() error {
	errs := []error{c.Config.Validate()}
	if len(c.Mounts) == 0 {
		errs = append(errs, errors.New("no PKI mount is configured; set pki_mount"))
	}
	used := map[string]spiffeid.TrustDomain{}
	for _, td := range c.domains() {
		m := c.Mounts[td]
		errs = append(errs, vault.CheckPath("pki_mount of "+td.Name(), m.Path))
		if len(m.Issuers) > maxIssuers {
			errs = append(errs, fmt.Errorf("%d issuers of %s; %d is the limit", len(m.Issuers), td, maxIssuers))
		}
		for _, ref := range m.Issuers {
			errs = append(errs, checkIssuer(ref))
		}
		if other, taken := used[m.Path]; taken {
			errs = append(
				errs,
				fmt.Errorf(
					"domains %s and %s both use the mount %s: whoever signs there could name anybody in either "+
						"domain; give each a mount with a root of its own",
					other,
					td,
					m.Path,
				),
			)
		}
		used[m.Path] = td
	}
	return errors.Join(errs...)
}

// CheckFiles reads the files and variables that the connection, the login and the anchors need, and names all that are
// not usable.
func (c Config) CheckFiles() error {
	errs := []error{c.Config.CheckFiles()}
	for _, td := range c.domains() {
		if file := c.Mounts[td].AnchorsFile; file != "" {
			_, err := pinned(file)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// domains returns the domains with a mount, in order.
func (c Config) domains() []spiffeid.TrustDomain {
	var all []spiffeid.TrustDomain
	for td := range c.Mounts {
		all = append(all, td)
	}
	slices.SortFunc(all, func(a, b spiffeid.TrustDomain) int { return cmp.Compare(a.Name(), b.Name()) })
	return all
}

func (c Config) withDefaults() Config {
	c.Config = c.WithDefaults()
	if c.LongestSVID == nil {
		c.LongestSVID = func(spiffeid.TrustDomain) time.Duration { return time.Hour }
	}
	if c.Sample == nil {
		c.Sample = func(td spiffeid.TrustDomain) (upstream.Sample, error) {
			return upstream.SampleOf(td, spiffeid.TrustDomain{}, "", "", "")
		}
	}
	c.PollInterval = cmp.Or(c.PollInterval, defaultPollInterval)
	return c
}
