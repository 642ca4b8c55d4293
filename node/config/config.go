package config

import (
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/internal/egress"
	"github.com/ententehq/entente/vaultca"
	"github.com/ententehq/entente/vaultca/transit"
)

// Config is the configuration of one member. [Load] and [Dev] return it, and every value in it is valid.
type Config struct {
	Cluster        Cluster
	Member         Member
	Join           *Join // nil if the member joins no cluster
	BundleEndpoint BundleEndpoint
	SelfSigned     SelfSigned
	Vault          *vaultca.Config // nil if the upstream is self-signed
	AnchorApproval bool            // a new anchor of the upstream waits for an operator
	Transit        *transit.Config // nil if the signing keys are not in Vault
	Authority      Authority
	Federation     Federation
	Routing        Routing
	Raft           Raft
	Telemetry      Telemetry
	Snapshots      *Snapshots // nil: the member saves none by itself
	Agents         Agents

	effective []byte
	literals  []string // the secrets that are in the file itself, in its order
}

// Effective returns the configuration with all defaults, as a file that [Load] accepts. It contains no secret, but the
// place of each; a secret that is in the file itself is replaced by a text that [Load] refuses.
func (c *Config) Effective() []byte { return c.effective }

// Cluster names the cluster. It is equal on every member.
type Cluster struct {
	Name        string
	TrustDomain spiffeid.TrustDomain // home
	Region      string
	// DNSName is a name that resolves to the addresses of all members, or "". It is in the SVIDs of the members.
	DNSName string
}

// Member is the part of the configuration that differs between members.
type Member struct {
	ID        string
	Zone      string
	DataDir   string // absolute
	Listen    string // host:port of the one TLS port
	Advertise string // host:port at which others reach the member
}

// Join names the cluster that a member with an empty data folder joins.
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
	Advertise   string        // host:port at which other clusters reach this endpoint alone; optional
	RefreshHint time.Duration // of the home domain's bundle, when the cluster is formed
	Profile     Profile
	CertFile    string // https_web by files
	KeyFile     string // https_web by files
	RootsFile   string // https_web: what other clusters verify the certificate with; if empty, their system's roots
	ACME        *ACME  // https_web by ACME; nil if by files
}

// SelfSigned configures the embedded upstream.
type SelfSigned struct {
	RootTTL time.Duration
}

// Keys is the place where a member keeps its signing keys.
type Keys string

// The places for signing keys.
const (
	KeysDisk    Keys = "disk"          // in the data folder
	KeysMemory  Keys = "memory"        // lost when the process ends
	KeysTransit Keys = "vault_transit" // in Vault, which signs
)

// Authority holds lifetimes, for the home domain when the cluster is formed and as the defaults of domains created
// later, and the settings by which this member issues.
type Authority struct {
	CATTL        time.Duration
	X509SVIDTTL  time.Duration
	JWTSVIDTTL   time.Duration
	JWTKeyTTL    time.Duration // the life of a JWT authority of this member
	SigningGrace time.Duration // how long a member signs without contact to a leader
	IssueRate    int           // limit of SVIDs a second for one caller of this member; 0 means no limit
	IssueBurst   int           // limit of SVIDs at once
	LintSample   int           // zlint checks one leaf in so many; 0 means none
	Keys         Keys          // the place of the signing keys
	// Encryption are the wrapping keys of keys on disk. The first one wraps; the others open what they wrapped before.
	Encryption    []KeyEncryption
	EncryptionOff bool // keys on disk are stored in the clear, and decrypted with Encryption
}

// DomainDefaults returns the settings of the home domain when the cluster is formed, and of domains created without
// settings of their own.
func (c *Config) DomainDefaults() plan.Settings {
	return plan.Settings{
		RefreshHint: c.BundleEndpoint.RefreshHint, PeerMinRefresh: c.Federation.PeerMinRefresh,
		CATTL:       c.Authority.CATTL,
		X509SVIDTTL: c.Authority.X509SVIDTTL, JWTSVIDTTL: c.Authority.JWTSVIDTTL,
	}
}

// Federation limits the load from foreign domains, and configures agreements.
type Federation struct {
	MinRefresh time.Duration // the shortest refresh hint to follow or publish
	// PeerMinRefresh is the interval below which the slowest peer does not poll, for domains that are created.
	PeerMinRefresh time.Duration
	NoApproval     bool // invited agreements need no approval by an operator of this cluster
	// BundleDir is the folder with the bundles of relationships from files. If empty, there are none on this member.
	BundleDir string
	// EgressProxy is the proxy on the way to other clusters and bundle endpoints, or [egress.Direct].
	// EgressCredentials, if not nil, are those for it.
	EgressProxy       string
	EgressCredentials *Secret
}

// Route returns the way to other clusters and bundle endpoints. The credentials are read at each connection.
func (f Federation) Route() (egress.Route, error) {
	route, err := egress.ParseRoute(f.EgressProxy)
	if err == nil && f.EgressCredentials != nil {
		route = route.WithCredentials(f.EgressCredentials.Read)
	}
	return route, err
}

// StalePolicy is the effect of a stale bundle on the instances of its domain.
type StalePolicy string

// The stale policies of a hint.
const (
	StaleDemote StalePolicy = "demote"
	StaleKeep   StalePolicy = "keep"
	StaleDrop   StalePolicy = "drop"
)

// Routing configures hints and imports.
type Routing struct {
	OverprovisioningFactor int // percent; 140 as in Envoy
	PanicThreshold         int // percent; 0 turns panic off
	Stale                  StalePolicy
	// ImportTTL is how long imported services stay in hints without a stream that confirms them.
	ImportTTL time.Duration
	// SelfPreservation is the part of the leased instances of a service, in percent, above which they stay when their
	// leases are lost together; 100 turns it off.
	SelfPreservation int
}

// Raft tunes consensus. The defaults suit members in the zones of one region.
type Raft struct {
	HeartbeatTimeout time.Duration
	ElectionTimeout  time.Duration
	DiskTimeout      time.Duration // the member fails if a call to the log store takes longer
}

// Telemetry configures the operations listener and the log.
type Telemetry struct {
	Listen    string
	LogLevel  string  // trace, debug, info, warn or error
	LogFormat string  // text or json
	Traces    *Traces // nil: no traces are exported
}

// Traces configures the export of traces to an OpenTelemetry collector, by OTLP over gRPC.
type Traces struct {
	Address string // host:port
	// Plain is set if the connection is not encrypted. The collector is then on this machine.
	Plain         bool
	CAFile        string  // PEM; if empty, the roots of the system
	Authorization *Secret // the header authorization; nil: none
	Ratio         float64 // the part of all traces, from 0 to 1
}

const (
	defaultDataDir      = "/var/lib/entente"
	defaultListen       = "127.0.0.1:7440"
	defaultBundleListen = "127.0.0.1:7443"
	defaultOpsListen    = "127.0.0.1:7448"
)

// Load reads the HCL file at path. The error lists every mistake, one line for each, with file, line and remedy.
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

// DevAddresses are the addresses on which `entente server --dev` listens.
type DevAddresses struct{ Member, BundleEndpoint, Operations string }

// DefaultAddresses are those of a member whose configuration names none.
func DefaultAddresses() DevAddresses {
	return DevAddresses{Member: defaultListen, BundleEndpoint: defaultBundleListen, Operations: defaultOpsListen}
}

// Dev returns the configuration of `entente server --dev`: one self-signed member on this machine, with its data in
// dir.
func Dev(dir string, listen DevAddresses) (*Config, error) {
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
  listen   = %q
}
federation {
  min_refresh      = "1s"
  peer_min_refresh = "1s"
}
bundle_endpoint {
  listen       = %q
  refresh_hint = "10s"
}
telemetry { listen = %q }
`, dir, listen.Member, listen.BundleEndpoint, listen.Operations)
	file, err := parseSource([]byte(src), "built-in development configuration")
	if err != nil {
		return nil, err
	}
	return decodeConfig(file)
}
