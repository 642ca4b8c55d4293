package agent

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/agent/attest"
	"github.com/ententehq/entente/agent/sds"
	"github.com/ententehq/entente/agent/workload"
	"github.com/ententehq/entente/agent/xds"
)

// The defaults of [Config].
const (
	DefaultDataDir = "/var/lib/entente-agent"
	DefaultSocket  = "/run/entente-agent/public/api.sock"
	DefaultAdmin   = "/run/entente-agent/admin.sock"
)

// Config configures an agent. The HCL of a configuration file has the same names.
type Config struct {
	// DataDir holds the agent's key.
	DataDir string `hcl:"data_dir,optional"`
	// Socket is the socket of the workloads, which every user of the node can connect to. AdminSocket answers 'entente
	// agent health', to the agent's own user alone. They are in different folders.
	Socket      string `hcl:"socket,optional"`
	AdminSocket string `hcl:"admin_socket,optional"`
	// Addresses are HOST:PORT of members, where the token names others that cannot be reached from here.
	Addresses []string `hcl:"addresses,optional"`
	// Token is the text of a token, or file:PATH or env:NAME of one. It is needed until the agent was attested.
	Token string `hcl:"token,optional"`
	// X509PoP and Kubernetes show the members which node this is, instead of a token. At most one is given.
	X509PoP    *X509PoP    `hcl:"x509pop,block"`
	Kubernetes *Kubernetes `hcl:"kubernetes,block"`
	// TrustDomain is the home trust domain, and TrustBundle the file of its bundle, by which the members at Addresses
	// are verified instead of by what a token names.
	TrustDomain string `hcl:"trust_domain,optional"`
	TrustBundle string `hcl:"trust_bundle,optional"`
	// Kubelet and Systemd turn on the attestors of pods and of units. The one of Unix is always on.
	Kubelet *Kubelet `hcl:"kubelet,block"`
	Systemd *Systemd `hcl:"systemd,block"`
	// CacheKeyFile has the key by which the identities of workloads are stored in DataDir, so that a restart during an
	// outage of the cluster loses none. If empty, they are in memory alone.
	CacheKeyFile string `hcl:"cache_key_file,optional"`
	// LogLevel is trace, debug, info, warn or error. LogFormat is text or json.
	LogLevel  string `hcl:"log_level,optional"`
	LogFormat string `hcl:"log_format,optional"`
	// Listen is HOST:PORT for /metrics, /live and /ready over HTTP. If empty, they are on the admin socket alone.
	Listen string `hcl:"listen,optional"`
	SDS    *SDS   `hcl:"sds,block"`
	// MaxStale is a duration: for how long routes to instances of foreign domains are kept while no member can be
	// reached. If empty, it is an hour.
	MaxStale string `hcl:"max_stale,optional"`
	maxStale time.Duration
}

// X509PoP is the certificate of the node, of an authority that the members are configured with.
type X509PoP struct {
	CertFile string `hcl:"cert_file"`
	KeyFile  string `hcl:"key_file"`
}

// Kubernetes is the projected token of the agent's service account.
type Kubernetes struct {
	// Cluster is the name of the Kubernetes cluster in the configuration of the members.
	Cluster   string `hcl:"cluster"`
	TokenFile string `hcl:"token_file,optional"`
}

// DefaultKubernetesToken is where a pod projects the token for the members.
const DefaultKubernetesToken = "/var/run/secrets/tokens/entente" //nolint:gosec // a path

// attestation returns the configuration of the agent's identity.
func (c Config) attestation(version string, logger hclog.Logger) (attest.Config, error) {
	a := attest.Config{Dir: c.DataDir, Token: c.Token, Addresses: c.Addresses, Version: version, Logger: logger}
	if c.X509PoP != nil && c.Kubernetes != nil {
		return a, errors.New("x509pop and kubernetes are both given: show the node by one of them")
	}
	if c.X509PoP != nil {
		a.X509PoP = &attest.X509PoP{CertFile: c.X509PoP.CertFile, KeyFile: c.X509PoP.KeyFile}
	}
	if c.Kubernetes != nil {
		a.Kubernetes = &attest.Kubernetes{
			Cluster: c.Kubernetes.Cluster, TokenFile: cmp.Or(c.Kubernetes.TokenFile, DefaultKubernetesToken),
		}
	}
	switch {
	case c.TrustDomain == "" && c.TrustBundle == "":
		return a, nil
	case c.TrustDomain == "" || c.TrustBundle == "" || len(c.Addresses) == 0:
		return a, errors.New("trust_domain, trust_bundle and addresses belong together: give all three")
	}
	td, err := spiffeid.TrustDomainFromString(c.TrustDomain)
	if err != nil {
		return a, fmt.Errorf("trust_domain: %w", err)
	}
	a.Trust = &attest.Trust{TrustDomain: td, File: c.TrustBundle}
	return a, nil
}

// Kubelet is the kubelet of this node, which knows its pods.
type Kubelet struct {
	URL              string `hcl:"url,optional"`
	CAFile           string `hcl:"ca_file,optional"`
	SkipVerification bool   `hcl:"skip_verification,optional"`
	TokenFile        string `hcl:"token_file,optional"`
	CertFile         string `hcl:"cert_file,optional"`
	KeyFile          string `hcl:"key_file,optional"`
}

// Systemd is the D-Bus of this node.
type Systemd struct {
	Address string `hcl:"address,optional"`
}

// DefaultKubelet is where the kubelet of a node listens, and DefaultKubeletToken the token of a pod's account.
const (
	DefaultKubelet      = "https://127.0.0.1:10250"
	DefaultKubeletToken = "/var/run/secrets/kubernetes.io/serviceaccount/token" //nolint:gosec // a path
)

// attestors returns those of workloads.
func (c Config) attestors(uses func(prefix string) bool, logger hclog.Logger) ([]workload.Attestor, error) {
	all := []workload.Attestor{workload.Unix{Uses: uses}}
	if k := c.Kubelet; k != nil {
		cfg := workload.KubernetesConfig{
			URL: cmp.Or(k.URL, DefaultKubelet), CAFile: k.CAFile, SkipVerification: k.SkipVerification,
			TokenFile: k.TokenFile, CertFile: k.CertFile, KeyFile: k.KeyFile, Logger: logger.Named("kubelet"),
		}
		if (k.CertFile == "") != (k.KeyFile == "") {
			return nil, errors.New("kubelet.cert_file and key_file belong together: give both")
		}
		if k.CertFile == "" {
			cfg.TokenFile = cmp.Or(k.TokenFile, DefaultKubeletToken)
		}
		pods, err := workload.NewKubernetes(cfg)
		if err != nil {
			return nil, err
		}
		all = append(all, pods)
	}
	if c.Systemd != nil {
		all = append(all, &workload.Systemd{Uses: uses, Address: c.Systemd.Address, Logger: logger.Named("systemd")})
	}
	return all, nil
}

// SDS has the names of secrets that do not follow from SPIFFE IDs.
type SDS struct {
	DefaultSVIDName      string `hcl:"default_svid_name,optional"`
	DefaultBundleName    string `hcl:"default_bundle_name,optional"`
	DefaultAllBundleName string `hcl:"default_all_bundles_name,optional"`
}

// Load reads a configuration file. A name that is unknown is an error with its line.
func Load(path string) (Config, error) {
	var c Config
	content, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("read the configuration: %w", err)
	}
	file, diags := hclparse.NewParser().ParseHCL(content, path)
	if !diags.HasErrors() {
		diags = gohcl.DecodeBody(file.Body, nil, &c)
	}
	if diags.HasErrors() {
		return c, fmt.Errorf("read the configuration: %w", diags)
	}
	return c, nil
}

// withDefaults returns the configuration with defaults for what is empty, or an error that names a setting.
func (c Config) withDefaults() (Config, error) {
	for _, s := range []struct {
		value *string
		def   string
	}{
		{&c.DataDir, DefaultDataDir}, {&c.Socket, DefaultSocket}, {&c.AdminSocket, DefaultAdmin}, {&c.LogLevel, "info"},
		{&c.LogFormat, "text"},
	} {
		if *s.value == "" {
			*s.value = s.def
		}
	}
	for _, path := range []*string{&c.DataDir, &c.Socket, &c.AdminSocket} {
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return c, err
		}
		*path = absolute
	}
	if filepath.Dir(c.Socket) == filepath.Dir(c.AdminSocket) {
		return c, fmt.Errorf("socket and admin_socket are both in %s: give the admin socket a folder of its own, "+
			"since "+
			"every user can enter that of the workloads", filepath.Dir(c.Socket))
	}
	const longest = 107 // of the path of a Unix socket
	for _, path := range []string{c.Socket, c.AdminSocket} {
		if len(path) > longest {
			return c, fmt.Errorf("the path of the socket %s has %d bytes: %d is the limit", path, len(path), longest)
		}
	}
	for _, a := range c.Addresses {
		if host, port, err := net.SplitHostPort(a); err != nil || host == "" || port == "" {
			return c, fmt.Errorf("addresses has %q: write HOST:PORT, such as eu-1.example.org:7440", a)
		}
	}
	var err error
	c.maxStale = xds.DefaultMaxStale
	if c.MaxStale != "" {
		if c.maxStale, err = time.ParseDuration(c.MaxStale); err != nil || c.maxStale <= 0 {
			return c, fmt.Errorf("max_stale is %q: write a duration above zero, such as 1h", c.MaxStale)
		}
	}
	c.Token, err = tokenText(c.Token)
	return c, err
}

// tokenText returns a secret that is given as file:PATH, env:NAME or itself. A file that is gone is an empty secret: an
// agent that was attested needs its token no more.
func tokenText(s string) (string, error) {
	if path, ok := strings.CutPrefix(s, "file:"); ok {
		content, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			return "", nil
		}
		if err != nil {
			return "", fmt.Errorf("read the token: %w", err)
		}
		return strings.TrimSpace(string(content)), nil
	}
	if name, ok := strings.CutPrefix(s, "env:"); ok {
		return os.Getenv(name), nil
	}
	return s, nil
}

// names returns the names of SDS.
func (c Config) names() sds.Names {
	n := sds.DefaultNames
	if c.SDS == nil {
		return n
	}
	if c.SDS.DefaultSVIDName != "" {
		n.Default = c.SDS.DefaultSVIDName
	}
	if c.SDS.DefaultBundleName != "" {
		n.Bundle = c.SDS.DefaultBundleName
	}
	if c.SDS.DefaultAllBundleName != "" {
		n.All = c.SDS.DefaultAllBundleName
	}
	return n
}
