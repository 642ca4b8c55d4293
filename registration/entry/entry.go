package entry

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/internal/dnsname"
)

const (
	// maxSelectors bounds the work of matching a workload with an entry.
	maxSelectors = 32
	maxSelector  = 512
	// maxDNSNames is that of an X509-SVID.
	maxDNSNames = 32
	// maxFederatesWith bounds the bundles of one workload, with federates_with_all as the way to more.
	maxFederatesWith = 256
	maxHint          = 255
	// reservedPath is that of package access/grant, which clients do not link: below it only the server issues.
	reservedPath = "/entente"
)

// Entry is a registration entry without its history.
type Entry struct {
	ID string
	// Agent is the name of the agent that it is for. If empty, it is for every agent with all of ParentSelectors.
	Agent           string
	ParentSelectors []string
	SPIFFEID        spiffeid.ID
	// Selectors are sorted, and at least one. A workload must have all of them.
	Selectors []string
	// X509TTL and JWTTTL are 0 for those of the trust domain.
	X509TTL, JWTTTL time.Duration
	DNSNames        []string
	// FederatesWith are the foreign trust domains whose bundles the workload has, sorted. FederatesWithAll means every
	// one.
	FederatesWith    []string
	FederatesWithAll bool
	Hint             string
}

// nameForm matches the names of agents and the IDs of entries, which are segments of paths and keys of rows.
var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$`)

// CheckName returns an error unless name can be that of an agent, or the ID of an entry. what is the field.
func CheckName(what, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%s is empty", what)
	case !nameForm.MatchString(name):
		return fmt.Errorf("%s %q must be 1 to 63 small letters, digits, '-', '_' and '.', with a letter or digit at "+
			"both ends", what, clip(name))
	}
	return nil
}

// Parse returns the entry that a message describes. An empty ID is allowed. The errors name the field and the remedy.
func Parse(m *ententev1.Entry) (Entry, error) {
	e := Entry{
		ID: m.GetId(), Agent: m.GetAgent(), DNSNames: m.GetDnsNames(), FederatesWithAll: m.GetFederatesWithAll(),
		Hint: m.GetHint(),
	}
	if e.ID != "" {
		if err := CheckName("id", e.ID); err != nil {
			return Entry{}, err
		}
	}
	var err error
	if e.SPIFFEID, err = bundle.ParseID(m.GetSpiffeId()); err != nil {
		return Entry{}, fmt.Errorf("spiffe_id: %w", err)
	}
	switch {
	case e.SPIFFEID.Path() == "":
		return Entry{}, fmt.Errorf("spiffe_id %s names a trust domain: a workload has a path below it, such as %s/web",
			e.SPIFFEID, e.SPIFFEID)
	case e.SPIFFEID.Path() == reservedPath || strings.HasPrefix(e.SPIFFEID.Path(), reservedPath+"/"):
		return Entry{}, fmt.Errorf("spiffe_id %s is below %s/, which only the server itself issues: choose another "+
			"path",
			e.SPIFFEID, reservedPath)
	}
	if err := e.parseParent(m); err != nil {
		return Entry{}, err
	}
	if len(m.GetSelectors()) == 0 {
		return Entry{}, errors.New("selectors is empty: name what the workload is known by, such as unix:uid:1000")
	}
	if e.Selectors, err = ParseSelectors("selectors", m.GetSelectors()); err != nil {
		return Entry{}, err
	}
	if e.X509TTL, err = parseTTL("x509_svid_ttl", m.GetX509SvidTtl()); err != nil {
		return Entry{}, err
	}
	if e.JWTTTL, err = parseTTL("jwt_svid_ttl", m.GetJwtSvidTtl()); err != nil {
		return Entry{}, err
	}
	if err := checkDNSNames(e.DNSNames); err != nil {
		return Entry{}, err
	}
	if err := e.parseFederation(m.GetFederatesWith()); err != nil {
		return Entry{}, err
	}
	if len(e.Hint) > maxHint || !printable(e.Hint) {
		return Entry{}, fmt.Errorf("hint must be printable text of %d bytes at most", maxHint)
	}
	return e, nil
}

func (e *Entry) parseParent(m *ententev1.Entry) (err error) {
	switch given := len(m.GetParentSelectors()) > 0; {
	case e.Agent == "" && !given:
		return errors.New("the entry is for no agent: name one in agent, or select agents by parent_selectors")
	case e.Agent != "" && given:
		return errors.New("agent and parent_selectors are both given: an entry is for one agent or for selected ones")
	case e.Agent != "":
		return CheckName("agent", e.Agent)
	}
	e.ParentSelectors, err = ParseSelectors("parent_selectors", m.GetParentSelectors())
	return err
}

func (e *Entry) parseFederation(names []string) error {
	if len(names) > 0 && e.FederatesWithAll {
		return errors.New("federates_with and federates_with_all are both given: name trust domains or have all")
	}
	if len(names) > maxFederatesWith {
		return fmt.Errorf("federates_with lists %d trust domains: %d is the limit, and federates_with_all has every "+
			"one",
			len(names), maxFederatesWith)
	}
	for _, name := range names {
		td, err := bundle.ParseTrustDomain(name)
		switch {
		case err != nil:
			return fmt.Errorf("federates_with: %w", err)
		case td == e.SPIFFEID.TrustDomain():
			return fmt.Errorf("federates_with lists %s, the trust domain of the entry, whose bundle the workload has",
				td.Name())
		}
		e.FederatesWith = append(e.FederatesWith, td.Name())
	}
	slices.Sort(e.FederatesWith)
	e.FederatesWith = slices.Compact(e.FederatesWith)
	return nil
}

// ParseSelectors returns selectors sorted, each once. field is for the error.
func ParseSelectors(field string, selectors []string) ([]string, error) {
	if len(selectors) > maxSelectors {
		return nil, fmt.Errorf("%s lists %d: %d is the limit", field, len(selectors), maxSelectors)
	}
	for _, s := range selectors {
		kind, value, ok := strings.Cut(s, ":")
		switch {
		case !ok || kind == "" || value == "" || strings.Trim(kind, "abcdefghijklmnopqrstuvwxyz0123456789_") != "":
			return nil, fmt.Errorf("%s has %q: write TYPE:VALUE, such as unix:uid:1000", field, clip(s))
		case len(s) > maxSelector || !printable(s):
			return nil, fmt.Errorf("%s has %q: a selector is printable text of %d bytes at most", field, clip(s),
				maxSelector)
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(selectors))), nil
}

func parseTTL(field string, d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	ttl := d.AsDuration()
	if !d.IsValid() || ttl < time.Second || ttl%time.Second != 0 {
		return 0, fmt.Errorf("%s is %s: it is whole seconds, one at least", field, ttl)
	}
	return ttl, nil
}

func checkDNSNames(names []string) error {
	if len(names) > maxDNSNames {
		return fmt.Errorf("dns_names lists %d: %d is the limit", len(names), maxDNSNames)
	}
	for i, name := range names {
		if err := dnsname.Check(name); err != nil {
			return fmt.Errorf("dns_names: %w", err)
		}
		if slices.Contains(names[:i], name) {
			return fmt.Errorf("dns_names lists %s twice", name)
		}
	}
	return nil
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

func clip(s string) string {
	const enough = 64
	if len(s) > enough {
		return strings.ToValidUTF8(s[:enough], "") + "…"
	}
	return s
}

// Content identifies what no two entries have in common: whom they are for, the SPIFFE ID and the selectors.
func (e Entry) Content() string {
	sum := sha256.New()
	for _, part := range [][]string{{e.Agent}, e.ParentSelectors, {e.SPIFFEID.String()}, e.Selectors} {
		fmt.Fprintf(sum, "%d\n", len(part))
		for _, p := range part {
			fmt.Fprintf(sum, "%d:%s\n", len(p), p)
		}
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// For reports whether the entry is for an agent with a name and the selectors of its attestation.
func (e Entry) For(agent string, selectors []string) bool {
	if e.Agent != "" {
		return e.Agent == agent
	}
	return len(e.ParentSelectors) > 0 && Covers(selectors, e.ParentSelectors)
}

// Covers reports whether selectors have each of some others.
func Covers(selectors, others []string) bool {
	return !slices.ContainsFunc(others, func(s string) bool { return !slices.Contains(selectors, s) })
}
