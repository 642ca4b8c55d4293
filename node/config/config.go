package config

import (
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/vaultca"
)

// Config is what one member is told before it starts. Every value is valid: [Load] and [Dev] are the only ways to one.
type Config struct {
	Cluster        Cluster
	Member         Member
	Join           *Join // nil: this member joins nobody
	BundleEndpoint BundleEndpoint
	SelfSigned     SelfSigned
	Vault          *vaultca.Config        // nil: the upstream is the self-signed one
	AnchorApproval bool                   // whether a new anchor of the upstream waits for an operator
	Transit        *vaultca.TransitConfig // nil: the signing keys are not in Vault
	Authority      Authority
	Federation     Federation
	Routing        Routing
	Raft           Raft
	Telemetry      Telemetry
}

// Cluster names the cluster; it is the same on every member.
type Cluster struct {
	Name        string
	TrustDomain spiffeid.TrustDomain // home
	Region      string
}

// Member is this member's own.
type Member struct {
	ID        string
	Zone      string
	DataDir   string // absolute
	Listen    string // host:port of the one TLS port
	Advertise string // host:port where others reach it
}

// Join says which cluster to join, once, with an empty data folder.
type Join struct {
	Addresses []string // host:port of members
	Token     Secret
}

// Profile is a SPIFFE bundle endpoint profile.
type Profile string

// The profiles of the SPIFFE Federation standard, section 5.2.
const (
	ProfileSPIFFE Profile = "https_spiffe"
	ProfileWeb    Profile = "https_web"
)

// BundleEndpoint is the SPIFFE bundle endpoint of this member.
type BundleEndpoint struct {
	Listen      string
	Advertise   string        // host:port where other clusters reach it, and of no other member; empty: see [member.endpointURLs]
	RefreshHint time.Duration // of the home domain's bundle, when the cluster is formed
	Profile     Profile
	CertFile    string // https_web by files
	KeyFile     string // https_web by files
	ACME        *ACME  // https_web by ACME; nil: by files
}

// SelfSigned is the embedded upstream.
type SelfSigned struct {
	RootTTL time.Duration
}

// Keys says where a member keeps its signing keys.
type Keys string

// Where keys are kept.
const (
	KeysDisk    Keys = "disk"          // in the data folder
	KeysMemory  Keys = "memory"        // they end with the process
	KeysTransit Keys = "vault_transit" // in Vault, which signs
)

// Authority holds lifetimes (of the home domain when the cluster is formed, and the defaults of domains created
// later), and how this member issues.
type Authority struct {
	CATTL        time.Duration
	X509SVIDTTL  time.Duration
	JWTSVIDTTL   time.Duration
	SigningGrace time.Duration // how long a member that hears from no leader goes on signing
	IssueRate    int           // SVIDs a second that one caller can ask this member for; 0: any number
	IssueBurst   int           // and how many at once
	LintSample   int           // zlint looks at one leaf in so many; 0: at none
	Keys         Keys          // where this member keeps its signing keys
}

// DomainDefaults are the settings of the home domain when the cluster is formed, and of domains created without their own.
func (c *Config) DomainDefaults() plan.Settings {
	return plan.Settings{
		RefreshHint: c.BundleEndpoint.RefreshHint, CATTL: c.Authority.CATTL,
		X509SVIDTTL: c.Authority.X509SVIDTTL, JWTSVIDTTL: c.Authority.JWTSVIDTTL,
	}
}

// Federation bounds what foreign domains can ask of this cluster.
type Federation struct {
	MinRefresh time.Duration // the shortest refresh hint that is followed, or published
	NoApproval bool          // agreements that come of invitations need no operator's approval on this side
}

// StalePolicy says what a stale bundle does to the instances of its domain.
type StalePolicy string

// The stale policies of a hint.
const (
	StaleDemote StalePolicy = "demote"
	StaleKeep   StalePolicy = "keep"
	StaleDrop   StalePolicy = "drop"
)

// Routing sets how hints are computed.
type Routing struct {
	OverprovisioningFactor int // percent; 140 as in Envoy
	PanicThreshold         int // percent; 0 turns panic off
	Stale                  StalePolicy
	// ImportTTL is for how long imported services are offered although no stream confirms them.
	ImportTTL time.Duration
}

// Raft tunes consensus. The defaults suit members in the zones of one region.
type Raft struct {
	HeartbeatTimeout time.Duration
	ElectionTimeout  time.Duration
	DiskTimeout      time.Duration // a log-store call that takes longer makes the member give up
}

// Telemetry is the operations listener and the log.
type Telemetry struct {
	Listen    string
	LogLevel  string // trace, debug, info, warn or error
	LogFormat string // text or json
}

const (
	defaultDataDir      = "/var/lib/entente"
	defaultListen       = "127.0.0.1:7440"
	defaultBundleListen = "127.0.0.1:7443"
	defaultOpsListen    = "127.0.0.1:7448"
)

// Load reads the HCL file at path. An error names the file, the line and the remedy; it lists every mistake found, a line each.
func Load(path string) (*Config, error) {
	file, err := parseFile(path)
	if err != nil {
		return nil, err
	}
	cfg, err := decodeConfig(file)
	if err != nil {
		return nil, err
	}
	return cfg, nil
}

// Dev is the configuration of `entente server --dev`: one member on this machine, self-signed, everything in dir.
func Dev(dir string) (*Config, error) {
	src := fmt.Sprintf(`
cluster {
  name         = "dev"
  trust_domain = "dev.example.org"
  region       = "local"
}
member {
  id       = "dev-1"
  zone     = "local-a"
  data_dir = %q
}
federation { min_refresh = "1s" }
bundle_endpoint { refresh_hint = "10s" }
`, dir)
	file, err := parseSource([]byte(src), "built-in development configuration")
	if err != nil {
		return nil, err
	}
	return decodeConfig(file)
}
