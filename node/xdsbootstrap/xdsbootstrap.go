// Package xdsbootstrap writes the bootstrap file of a client that gets its routes over xDS. That of a gRPC client names
// the members, a relay or an agent, and the files with the client's SVID and the bundles; [BundleMap] writes the
// bundles as gRPC reads them. That of Envoy names an agent, which has everything else ([Config.MarshalEnvoy]).
package xdsbootstrap

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/routing/xds"
)

// Config is the content of a bootstrap file.
type Config struct {
	// Servers are the addresses of the members, as HOST:PORT or IP:PORT, in the order of preference. Relay, if not
	// empty, is a Unix socket that replaces them, for clients that cannot present an SVID to their control plane.
	//
	// DNSName, if not empty, is one HOST:PORT behind which the client finds all members, and replaces Servers: a gRPC
	// client that has several servers uses the others only for what it does not have yet, and keeps what it has from a
	// server that is gone.
	Servers []string
	Relay   string
	DNSName string
	// Home is the cluster's home trust domain. Domains are all domains that the cluster can verify.
	Home    string
	Domains []string
	// Dir is the folder that 'svid x509 --watch' updates.
	Dir string
	// NodeID names the client in logs. Locality is where the client runs.
	NodeID   string
	Locality *ententev1.Locality
	// Outbound is where Envoy listens for requests of its own service, if not at 127.0.0.1:15001.
	Outbound netip.AddrPort
	// FilePerDomain is for clients that do not support a SPIFFE bundle map.
	FilePerDomain bool
}

// The names of the files in Config.Dir.
const (
	SVIDFile      = "svid.pem"
	KeyFile       = "svid.key"
	BundleMapFile = "bundles.json"
)

// RootsFile returns the name of the file with the X.509 authorities of one trust domain.
func RootsFile(domain string) string { return "roots-" + domain + ".pem" }

// refreshFiles is the interval at which a client reloads its files.
const refreshFiles = "1s"

// The parts of the file, as in gRFC A27, A29 and A65.
type (
	bootstrapFile struct {
		Servers   []bootstrapServer           `json:"xds_servers"`
		Node      bootstrapNode               `json:"node"`
		Providers map[string]bootstrapPlugged `json:"certificate_providers"`
		Inbound   string                      `json:"server_listener_resource_name_template"`
	}
	bootstrapServer struct {
		URI      string           `json:"server_uri"`
		Creds    []bootstrapCreds `json:"channel_creds"`
		Features []string         `json:"server_features"`
	}
	bootstrapCreds struct {
		Type   string          `json:"type"`
		Config *bootstrapFiles `json:"config,omitempty"`
	}
	bootstrapNode struct {
		ID       string            `json:"id"`
		Cluster  string            `json:"cluster"`
		Locality bootstrapLocality `json:"locality"`
		Metadata map[string]string `json:"metadata"`
	}
	bootstrapLocality struct {
		Region  string `json:"region"`
		Zone    string `json:"zone,omitempty"`
		SubZone string `json:"sub_zone,omitempty"`
	}
	bootstrapPlugged struct {
		Plugin string         `json:"plugin_name"`
		Config bootstrapFiles `json:"config"`
	}
	bootstrapFiles struct {
		Certificate string `json:"certificate_file,omitempty"`
		Key         string `json:"private_key_file,omitempty"`
		Roots       string `json:"ca_certificate_file,omitempty"`
		BundleMap   string `json:"spiffe_trust_bundle_map_file,omitempty"`
		Refresh     string `json:"refresh_interval"`
	}
)

// Marshal returns the file.
func (b Config) Marshal() ([]byte, error) {
	if b.DNSName != "" {
		b.Servers = []string{b.DNSName}
	}
	if len(b.Servers) == 0 && b.Relay == "" {
		return nil, errors.New("no server and no relay is given")
	}
	if _, err := bundle.ParseTrustDomain(b.Home); err != nil {
		return nil, fmt.Errorf("the home trust domain: %w", err)
	}
	dir, err := filepath.Abs(b.Dir)
	if err != nil {
		return nil, err
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	svid := bootstrapFiles{Certificate: in(SVIDFile), Key: in(KeyFile), Refresh: refreshFiles}
	file := bootstrapFile{
		Node: bootstrapNode{
			ID: b.NodeID, Cluster: b.Home,
			Locality: bootstrapLocality{
				Region: b.Locality.GetRegion(), Zone: b.Locality.GetZone(), SubZone: b.Locality.GetSubZone(),
			},
			Metadata: map[string]string{xds.RootsKey: xds.RootsMap},
		},
		Providers: map[string]bootstrapPlugged{xds.IdentityProvider: plugged(svid)},
		Inbound:   xds.InboundPrefix + "%s",
	}
	if b.FilePerDomain {
		file.Node.Metadata[xds.RootsKey] = xds.RootsFiles
		for _, domain := range append(slices.Clone(b.Domains), b.Home) {
			td, err := bundle.ParseTrustDomain(domain)
			if err != nil {
				return nil, err
			}
			file.Providers[xds.RootsProviderOf(td)] = plugged(bootstrapFiles{Roots: in(RootsFile(domain)),
				Refresh: refreshFiles})
		}
	} else {
		// A client without support for bundle maps verifies the home domain only.
		file.Providers[xds.RootsProvider] = plugged(bootstrapFiles{
			BundleMap: in(BundleMapFile), Roots: in(RootsFile(b.Home)), Refresh: refreshFiles,
		})
	}
	// The client verifies the control plane by the roots of the home domain and the host name. With the bundle map, a
	// workload of any domain could impersonate the control plane.
	control := svid
	control.Roots = in(RootsFile(b.Home))
	for _, address := range b.Servers {
		file.Servers = append(file.Servers, bootstrapServer{
			URI: target(address), Features: []string{"xds_v3"},
			Creds: []bootstrapCreds{{Type: "tls", Config: &control}},
		})
	}
	if b.Relay != "" {
		relay, err := filepath.Abs(b.Relay)
		if err != nil {
			return nil, err
		}
		file.Servers = []bootstrapServer{{URI: "unix:" + relay, Features: []string{"xds_v3"},
			Creds: []bootstrapCreds{{Type: "insecure"}}}}
	}
	return json.MarshalIndent(file, "", "  ")
}

// target returns an address in the form of gRPC, which resolves host names, but not IP addresses.
func target(address string) string {
	if _, err := netip.ParseAddrPort(address); err == nil {
		return "passthrough:///" + address
	}
	return "dns:///" + address
}

func plugged(files bootstrapFiles) bootstrapPlugged {
	return bootstrapPlugged{Plugin: "file_watcher", Config: files}
}
