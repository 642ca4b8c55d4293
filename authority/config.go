package authority

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"

	"github.com/ententehq/entente/access/audit"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/issue"
	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/authority/upstream"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership"
)

// Contact is the contact of this member with the others. It is called from many goroutines.
type Contact interface {
	// LastContact returns the time of the last contact to the leader, or of leading with a quorum. It is zero before
	// that.
	LastContact() time.Time
	// ClockSane reports whether this member's clock is within minutes of those of a majority. It is false until known.
	ClockSane() bool
	// ClockPlausible reports whether ClockSane, or, until that is known, whether the clock is not before the last
	// contact that this member has recorded. That suffices to sign for SigningGrace after it.
	ClockPlausible() bool
}

// Config configures a [Manager]. Store, Member, Home, Keys or KeyDir, Contact, Conn and Audit are required.
type Config struct {
	Store  *raftstore.Store
	Member string
	// Home is the trust domain that names the members. It is created with Defaults if it does not exist.
	Home spiffeid.TrustDomain
	// DNSName, unless empty, is in the SVIDs of all members beside their own hosts.
	DNSName string
	// Defaults are the settings of a domain that is created without its own. Zero fields take the defaults of package
	// plan.
	Defaults plan.Settings
	// MinRefresh is the shortest refresh hint that a domain can have.
	MinRefresh time.Duration
	// SigningGrace is the time for which this member signs after its last contact to the leader.
	SigningGrace time.Duration
	// Keys stores this member's private keys. If nil, a [keys.Folder] at KeyDir is used.
	Keys   keys.Store
	KeyDir string
	// RootTTL is the lifetime of the roots that this member makes itself.
	RootTTL time.Duration
	// JWTKeyTTL is the lifetime of the JWT authorities of this member, unless the ca_ttl of a domain is longer.
	JWTKeyTTL time.Duration
	// Upstream signs this member's CA certificates. If nil, roots of the member's own do, kept with the keys.
	Upstream upstream.Upstream
	// AnchorApproval makes a new anchor of the upstream wait until an operator approves it.
	AnchorApproval bool
	// IssueRate is the number of SVIDs a second that one caller can request from this member, and IssueBurst the number
	// at once. 0 stands for the defaults, a negative rate for no limit.
	IssueRate  float64
	IssueBurst int
	// LintSample has zlint check one leaf in so many: 0 for the default, negative for none.
	LintSample int
	Contact    Contact
	// Conn returns the connection to another member, on which its SigningService is served. It is not closed here.
	Conn func(memberID string) (grpc.ClientConnInterface, error)
	// Members returns the IDs of all members of the cluster. If nil, those of [membership.Members].
	Members func(raftstore.Reader) ([]string, error)
	// Alive returns the IDs of the members that the leader counts as alive. If nil, those of [membership.Alive].
	Alive func(raftstore.Reader) ([]string, error)
	// IsForeign reports, inside a transaction, whether a trust domain is foreign. If nil, none is.
	IsForeign func(r raftstore.Reader, td string) (bool, error)
	// Ends and Depends are those of [domain.Config].
	Ends    func(tx *raftstore.Tx, td spiffeid.TrustDomain) ([]*ententev1.Effect, func(), error)
	Depends func(ctx context.Context, r raftstore.Reader, td spiffeid.TrustDomain) ([]*ententev1.Effect, error)
	Audit   audit.Recorder
	// Acknowledgements returns what peers with streams have acknowledged. If nil, there are no streams.
	Acknowledgements Acknowledgements

	Logger     hclog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time // time.Now if nil
}

func (c Config) withDefaults() (Config, error) {
	if err := c.checkRequired(); err != nil {
		return c, err
	}
	setDefault(&c.Defaults.RefreshHint, plan.DefaultRefreshHint)
	setDefault(&c.Defaults.CATTL, plan.DefaultCATTL)
	setDefault(&c.Defaults.X509SVIDTTL, plan.DefaultX509SVIDTTL)
	setDefault(&c.Defaults.JWTSVIDTTL, plan.DefaultJWTSVIDTTL)
	setDefault(&c.MinRefresh, plan.DefaultMinRefresh)
	setDefault(&c.SigningGrace, plan.DefaultSigningGrace)
	setDefault(&c.RootTTL, plan.DefaultRootTTL)
	setDefault(&c.JWTKeyTTL, plan.DefaultJWTKeyTTL)
	setDefault(&c.IssueRate, issue.DefaultRate)
	setDefault(&c.IssueBurst, issue.DefaultBurst)
	setDefault(&c.LintSample, issue.DefaultLintSample)
	if c.IssueBurst < 1 {
		return c, fmt.Errorf("issue_burst is %d; with less than 1 no caller gets an SVID", c.IssueBurst)
	}
	if c.SigningGrace < 0 {
		return c, fmt.Errorf("signing_grace is %v; it cannot be negative", c.SigningGrace)
	}
	if err := c.Defaults.Check(c.MinRefresh); err != nil {
		return c, err
	}
	if c.Upstream == nil && c.RootTTL < plan.RootLives*c.Defaults.CATTL {
		return c, fmt.Errorf("root_ttl is %v and ca_ttl %v; a root has to live for %d times as long as what it signs",
			c.RootTTL, c.Defaults.CATTL, plan.RootLives)
	}
	if c.IsForeign == nil {
		c.IsForeign = func(raftstore.Reader, string) (bool, error) { return false, nil }
	}
	if c.Members == nil {
		c.Members = membersOf
	}
	if c.Alive == nil {
		c.Alive = membership.Alive
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c, nil
}

func (c Config) checkRequired() error {
	switch {
	case c.Store == nil || c.Contact == nil || c.Conn == nil || c.Audit == nil:
		return errors.New("authority: Store, Contact, Conn and Audit are required")
	case c.Home.IsZero():
		return errors.New("authority: the home trust domain is required")
	case c.Keys == nil && c.KeyDir == "":
		return errors.New("authority: a key store or a key folder is required")
	}
	if _, err := svid.MemberID(c.Home, c.Member); err != nil {
		return err
	}
	_, err := bundle.ParseTrustDomain(c.Home.Name())
	return err
}

func setDefault[T comparable](value *T, byDefault T) {
	var zero T
	if *value == zero {
		*value = byDefault
	}
}

func membersOf(r raftstore.Reader) ([]string, error) {
	rows, err := membership.Members.List(r, "")
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(rows))
	for i, row := range rows {
		ids[i] = row.Key
	}
	return ids, nil
}
