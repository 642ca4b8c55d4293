// Package xds has the commands for xDS clients: the bootstrap file and the relay.
package xds

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"slices"

	"github.com/spf13/cobra"

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
)

func bootstrapCommand(env *cli.Env) *cobra.Command {
	var locality cli.LocalityFlag
	var dir, client, id, relay string
	var servers []string
	cmd := &cobra.Command{
		Use:   "bootstrap --dir DIR --locality REGION[/ZONE[/SUB-ZONE]]",
		Short: "Write the bootstrap file of a gRPC client or server that uses xds:///SERVICE",
		Long: `Write, to standard output, the bootstrap file by which a gRPC program finds this cluster and its own
credentials. Name the file in GRPC_XDS_BOOTSTRAP; the program then dials xds:///SERVICE with xDS credentials.

The credentials are the files in --dir, which 'entente svid x509 --watch --dir DIR' keeps fresh.

The program outlives its member in one of two ways. With --relay it connects to the Unix socket of 'entente xds
relay', which leaves a member that is lost or frozen within two seconds. Without, it connects to the name in
cluster.dns_name, which resolves to the addresses of all members: gRPC moves on when a connection breaks, but notices
a member that is frozen, or whose host lost its power, only after more than five minutes. Without either, the file
lists all members, those in the client's zone first, or those of --server. That is no failover: gRPC uses a further
server only for what it does not have yet, and keeps stale routes from one that is gone.

gRPC for Go reads the bundle map only with GRPC_EXPERIMENTAL_XDS_MTLS_SPIFFE=true in its environment; without, it
can verify only instances of the home trust domain. gRPC for Node.js (--client node) reads one file of roots for
each trust domain: write its file again when a relationship is added. It cannot present an SVID to its control plane
either, and needs --relay.`,
		Example: `  entente xds bootstrap --dir /run/shop/svid --locality eu-west-1/eu-west-1a >bootstrap.json`,
		Args:    cli.Arguments(),
		PreRunE: cli.Required("dir", "locality"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
			switch {
			case client != clientGRPC && client != clientNode:
				return cli.Usagef("--client %q is neither %s nor %s", client, clientGRPC, clientNode)
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
		}),
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unnamed"
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", "", "`FOLDER` with the SVID, which 'entente svid x509 --watch' keeps fresh")
	f.Var(&locality, "locality", "where the client runs: `REGION[/ZONE[/SUB-ZONE]]`")
	f.StringVar(&client, "client", clientGRPC, "the `KIND` of client: grpc, or node for Node.js")
	cli.FlagValues(cmd, "client", clientGRPC, clientNode)
	f.StringArrayVar(&servers, "server", nil,
		"`HOST:PORT` of a member; can be repeated (default: the members of the cluster)")
	f.StringVar(&relay, "relay", "", "Unix `SOCKET` of 'entente xds relay', in place of the members")
	f.StringVar(&id, "node-id", host, "`NAME` of the client in logs")
	return cmd
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
