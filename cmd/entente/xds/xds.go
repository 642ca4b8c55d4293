// Package xds has the commands for xDS clients: the bootstrap file and the relay.
package xds

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
	"github.com/ententehq/entente/node/xdsbootstrap"
)

// Command returns the noun with its verbs.
func Command(env *cli.Env) *cobra.Command {
	return cli.Group("xds", "Routes for gRPC clients and Envoy", bootstrapCommand(env), relayCommand(env))
}

// Kinds of clients of a bootstrap file.
const (
	clientGRPC = "grpc"
	clientNode = "node"
	// clientEnvoy is served by an agent alone.
	clientEnvoy = "envoy"
)

func bootstrapCommand(env *cli.Env) *cobra.Command {
	var locality cli.LocalityFlag
	var dir, client, id, relay, agent, outbound string
	var servers []string
	cmd := &cobra.Command{
		Use:   "bootstrap --locality REGION[/ZONE[/SUB-ZONE]] [--dir DIR]",
		Short: "Write the bootstrap file of a gRPC client or server that uses xds:///SERVICE, or of Envoy",
		Long: `Write, to standard output, the bootstrap file by which a gRPC program finds this cluster and its own
credentials. Name the file in GRPC_XDS_BOOTSTRAP; the program then dials xds:///SERVICE with xDS credentials.

The credentials are the files in --dir, which 'entente svid x509 --watch --dir DIR' keeps fresh.

With --agent SOCKET the file names the agent on the node, and no member is called: run the command as the workload.
'entente svid x509 --agent SOCKET --watch --dir DIR' keeps the files fresh. Envoy (--client envoy) needs no files: it
has routes, certificates and validation contexts from the agent, and listens at --outbound for requests to services,
each by its name.

Without an agent the program outlives its member in one of two ways. With --relay it connects to the Unix socket of
'entente xds relay', which leaves a member that is lost or frozen within two seconds. Without, it connects to the name
in cluster.dns_name, which resolves to the addresses of all members: gRPC moves on when a connection breaks, but
notices a member that is frozen, or whose host lost its power, only after more than five minutes. Without either, the
file lists all members, those in the client's zone first, or those of --server. That is no failover: gRPC uses a
further server only for what it does not have yet, and keeps stale routes from one that is gone.

gRPC for Go reads the bundle map only with GRPC_EXPERIMENTAL_XDS_MTLS_SPIFFE=true in its environment; without, it
can verify only instances of the home trust domain. gRPC for Node.js (--client node) reads one file of roots for
each trust domain: write its file again when a relationship is added. It cannot present an SVID to its control plane
either, and needs --relay.`,
		Example: `  entente xds bootstrap --dir /run/shop/svid --locality eu-west-1/eu-west-1a >bootstrap.json
  entente xds bootstrap --agent /run/entente-agent/public/api.sock --client envoy --locality eu-west-1 >envoy.json`,
		Args:    cli.Arguments(),
		PreRunE: cli.Required("locality"),
	}
	withAgent := func(cmd *cobra.Command) error {
		ctx, cancel := context.WithTimeout(cmd.Context(), env.Timeout)
		defer cancel()
		file := xdsbootstrap.Config{Relay: agent, Dir: dir, NodeID: id, Locality: locality.Value,
			FilePerDomain: client == clientNode}
		if outbound != "" {
			var err error
			if file.Outbound, err = netip.ParseAddrPort(outbound); err != nil || !file.Outbound.Addr().IsLoopback() {
				return cli.Usagef("--outbound %q is no IP:PORT on loopback, such as 127.0.0.1:15001", outbound)
			}
		}
		if err := readAgent(ctx, &file); err != nil {
			return err
		}
		marshal := file.Marshal
		if client == clientEnvoy {
			marshal = file.MarshalEnvoy
		}
		text, err := marshal()
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(env.Stdout, "%s\n", text)
		return err
	}
	withMember := env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
		switch {
		case client == clientNode && relay == "":
			return cli.Usagef(
				"--relay is missing: --client node connects to the Unix socket of 'entente xds relay --listen'",
			)
		case relay != "" && len(servers) > 0:
			return cli.Usagef("--relay replaces the members: leave out --server")
		}
		file := xdsbootstrap.Config{
			Servers: servers, Relay: relay, Dir: dir, NodeID: id, Locality: locality.Value,
			FilePerDomain: client == clientNode,
		}
		bundles := member.Bundles()
		home, err := bundles.GetBundle(ctx, &ententev1.GetBundleRequest{})
		if err != nil {
			return err
		}
		file.Home = home.GetTrustDomain()
		if file.FilePerDomain {
			if file.Domains, err = allDomains(ctx, bundles); err != nil {
				return err
			}
		} else if len(servers) == 0 && relay == "" {
			members, err := member.Cluster().ListMembers(ctx, &ententev1.ListMembersRequest{})
			if err != nil {
				return fmt.Errorf("list the members (--server names them instead): %w", err)
			}
			file.Servers = nearestFirst(members.GetMembers(), locality.Value)
			if file.DNSName, err = sharedTarget(members); err != nil {
				return err
			}
		}
		text, err := file.Marshal()
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(env.Stdout, "%s\n", text)
		return err
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case client != clientGRPC && client != clientNode && client != clientEnvoy:
			return cli.Usagef("--client %q is none of %s, %s and %s", client, clientGRPC, clientNode, clientEnvoy)
		case client == clientEnvoy && agent == "":
			return cli.Usagef("--agent is missing: --client envoy connects to the socket of an agent")
		case client != clientEnvoy && dir == "":
			return cli.Usagef("--dir is missing: name the folder with the SVID of the program")
		case agent != "" && (relay != "" || len(servers) > 0):
			return cli.Usagef("--agent replaces the members and the relay: leave out --server and --relay")
		case agent != "":
			return withAgent(cmd)
		}
		return withMember(cmd, args)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unnamed"
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", "", "`FOLDER` with the SVID, which 'entente svid x509 --watch' keeps fresh")
	f.Var(&locality, "locality", "where the client runs: `REGION[/ZONE[/SUB-ZONE]]`")
	f.StringVar(&client, "client", clientGRPC, "the `KIND` of client: grpc, node for Node.js, or envoy")
	cli.FlagValues(cmd, "client", clientGRPC, clientNode, clientEnvoy)
	f.StringArrayVar(&servers, "server", nil,
		"`HOST:PORT` of a member; can be repeated (default: the members of the cluster)")
	f.StringVar(&relay, "relay", "", "Unix `SOCKET` of 'entente xds relay', in place of the members")
	f.StringVar(&agent, "agent", "", "`SOCKET` of the agent on the node, in place of the members")
	f.StringVar(&outbound, "outbound", "", "with --client envoy: `IP:PORT` on loopback where it listens for requests "+
		"to services (default 127.0.0.1:15001)")
	f.StringVar(&id, "node-id", host, "`NAME` of the client in logs")
	return cmd
}

// readAgent sets what a file contains of the workload that calls: its own trust domain, and those that it can verify.
func readAgent(ctx context.Context, file *xdsbootstrap.Config) error {
	socket, err := filepath.Abs(file.Relay)
	if err != nil {
		return err
	}
	svids, err := workloadapi.FetchX509Context(ctx, workloadapi.WithAddr("unix://"+socket))
	if err != nil {
		return fmt.Errorf("read the identity of this program from the agent at %s: %w", socket, err)
	}
	file.Home = svids.DefaultSVID().ID.TrustDomain().Name()
	for _, b := range svids.Bundles.Bundles() {
		file.Domains = append(file.Domains, b.TrustDomain().Name())
	}
	slices.Sort(file.Domains)
	return nil
}

// allDomains returns the trust domains of all bundles.
func allDomains(ctx context.Context, client ententev1.BundleServiceClient) ([]string, error) {
	var all []string
	for token := ""; ; {
		page, err := client.ListBundles(ctx, &ententev1.ListBundlesRequest{PageToken: token})
		if err != nil {
			return nil, err
		}
		for _, b := range page.GetBundles() {
			all = append(all, b.GetTrustDomain())
		}
		if token = page.GetNextPageToken(); token == "" {
			return all, nil
		}
	}
}

// sharedTarget returns the HOST:PORT of cluster.dns_name, or "" if the cluster has none.
func sharedTarget(members *ententev1.ListMembersResponse) (string, error) {
	if members.GetDnsName() == "" {
		return "", nil
	}
	port := ""
	for _, m := range members.GetMembers() {
		_, its, err := net.SplitHostPort(m.GetAddress())
		if err != nil {
			return "", fmt.Errorf("the address of member %s: %w", m.GetId(), err)
		}
		if port != "" && port != its {
			return "", fmt.Errorf("the members have the ports %s and %s, and %s stands for one: "+
				"give them one port, or use --relay", port, its, members.GetDnsName())
		}
		port = its
	}
	return net.JoinHostPort(members.GetDnsName(), port), nil
}

// nearestFirst returns the addresses of all members, those in the client's zone first. One that is down now can be the
// only one that is left later.
func nearestFirst(members []*ententev1.Member, at *ententev1.Locality) []string {
	distance := func(m *ententev1.Member) int {
		if m.GetRegion() == at.GetRegion() && m.GetZone() == at.GetZone() {
			return 0
		}
		return 1
	}
	members = slices.Clone(members)
	slices.SortStableFunc(members, func(a, b *ententev1.Member) int { return cmp.Compare(distance(a), distance(b)) })
	var out []string
	for _, m := range members {
		out = append(out, m.GetAddress())
	}
	return out
}
