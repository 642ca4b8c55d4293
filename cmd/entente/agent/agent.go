// Package agent has the commands that run an agent on a node, and those that manage the agents of a cluster.
package agent

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/ententehq/entente/agent"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
	"github.com/ententehq/entente/node"
)

// gcPercent is GOGC of an agent unless that is set: one runs on every node, where memory is worth more than its little
// work.
const gcPercent = 50

// Command returns the command that runs an agent, with the verbs.
func Command(env *cli.Env) *cobra.Command {
	var file, tokenFile string
	var flags agent.Config
	cmd := &cobra.Command{
		Use:   "agent --config FILE | --data-dir DIR",
		Short: "Run an agent on this node, or manage the agents of the cluster",
		Long: `Run an agent on this node until it is interrupted. It attests the workloads of the node, and gives them
their identities by the SPIFFE Workload API and by Envoy's SDS, on one Unix socket.

The first start needs a token from 'entente agent token NAME', by --token-file, ENTENTE_AGENT_TOKEN or the
configuration. From then on the agent attests itself by the key in its data folder. What workloads receive is
decided by the entries of the cluster: see 'entente entry create'.`,
		Example: `  entente agent --config /etc/entente/agent.hcl
  entente agent --data-dir /var/lib/entente-agent --token-file /run/agent-token`,
		Args: cli.NoSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" && flags.DataDir == "" {
				return cli.Usagef("--config is missing: name the configuration file, or give --data-dir")
			}
			cfg := flags
			if file != "" {
				var err error
				if cfg, err = agent.Load(file); err != nil {
					return err
				}
				overlay(&cfg, flags)
			}
			if tokenFile != "" {
				cfg.Token = "file:" + tokenFile
			}
			if cfg.Token == "" {
				cfg.Token = env.Getenv("ENTENTE_AGENT_TOKEN")
			}
			if env.Getenv("GOGC") == "" {
				debug.SetGCPercent(gcPercent)
			}
			return agent.Run(cmd.Context(), cfg, agent.Options{
				Version: node.Version, LogOutput: env.Stderr, Started: func() { ready(env) },
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&file, "config", "", "configuration `FILE`; flags come before what is in it")
	f.StringVar(&flags.DataDir, "data-dir", "", "folder of the agent's key (default with --config: "+
		agent.DefaultDataDir+")")
	f.StringVar(&tokenFile, "token-file", "", "`FILE` with a token; it is needed once")
	f.StringVar(&flags.Socket, "workload-socket", "", "socket of the workloads (default "+agent.DefaultSocket+")")
	f.StringVar(&flags.AdminSocket, "agent-socket", "", "admin socket of the agent (default "+agent.DefaultAdmin+")")
	f.StringSliceVar(&flags.Addresses, "server", nil,
		"HOST:PORT of members, where those in the token cannot be reached from this node")
	f.StringVar(&flags.Listen, "metrics-listen", "", "HOST:PORT for metrics and readiness over HTTP (default: none)")
	f.StringVar(&flags.LogLevel, "log-level", "", "trace, debug, info, warn or error (default info)")
	cmd.AddCommand(tokenCommand(env), listCommand(env), showCommand(env), evictCommand(env), banCommand(env),
		healthCommand(env))
	return cmd
}

// ready reports to systemd, if that has started the agent, that workloads are served.
func ready(env *cli.Env) {
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		fmt.Fprintf(env.Stderr, "systemd could not be notified: %v\n", err)
	}
}

// overlay sets what flags give.
func overlay(cfg *agent.Config, flags agent.Config) {
	for _, s := range []struct {
		to   *string
		from string
	}{
		{&cfg.DataDir, flags.DataDir}, {&cfg.Socket, flags.Socket}, {&cfg.AdminSocket, flags.AdminSocket},
		{&cfg.Listen, flags.Listen}, {&cfg.LogLevel, flags.LogLevel},
	} {
		if s.from != "" {
			*s.to = s.from
		}
	}
	if len(flags.Addresses) > 0 {
		cfg.Addresses = flags.Addresses
	}
}

func listCommand(env *cli.Env) *cobra.Command {
	var stale *bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the agents",
		Long: `List the agents that were attested, with how many entries each one has. Banned agents are among them
until they are evicted.`,
		Example: `  entente agent list`,
		Args:    cli.Arguments(),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
			list, err := cli.Read(ctx, env, *stale,
				func(ctx context.Context, o *ententev1.ReadOptions) (*ententev1.ListAgentsResponse, error) {
					all := &ententev1.ListAgentsResponse{}
					for request := (&ententev1.ListAgentsRequest{Read: o}); ; {
						page, err := member.Agents().ListAgents(ctx, request)
						if err != nil {
							return nil, err
						}
						all.Revision, all.Agents = page.GetRevision(), append(all.Agents, page.GetAgents()...)
						if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
							return all, nil
						}
					}
				})
			if err != nil {
				return err
			}
			return env.Print(list, func(t *cli.Table) {
				t.Columns("NAME", "STATE", "ATTESTED BY", "ATTESTED", "ENTRIES", "SPIFFE ID")
				for _, a := range list.GetAgents() {
					t.Row(a.GetName(), cli.EnumName(a.GetState()), a.GetAttestation(), cli.Since(a.GetAttestTime()),
						a.GetEntries(), a.GetSpiffeId())
				}
				t.Otherwise("There is no agent: 'entente agent token NAME' admits one.")
			})
		}),
	}
	stale = cli.Stale(cmd)
	return cmd
}

func showCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "Show an agent",
		Long: `Show an agent: its state, its key, and the selectors of its attestation, which entries can select agents
by. Its entries are in 'entente entry list --agent NAME'.`,
		Example: `  entente agent show node-1`,
		Args:    cli.Arguments("NAME"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			a, err := member.Agents().GetAgent(ctx, &ententev1.GetAgentRequest{Name: args[0]})
			if err != nil {
				return err
			}
			return env.Print(a, func(t *cli.Table) {
				t.Field("name", a.GetName())
				t.Field("spiffe id", a.GetSpiffeId())
				t.Field("state", cli.EnumName(a.GetState()))
				t.Field("attested by", a.GetAttestation())
				t.Field("attested", cli.Time(a.GetAttestTime()))
				t.Field("selectors", strings.Join(a.GetSelectors(), " "))
				t.Field("identity key", a.GetIdentity())
				t.Field("entries", a.GetEntries())
				if a.GetBanTime() != nil {
					t.Field("banned", cli.Time(a.GetBanTime()))
					t.Field("banned by", a.GetBannedBy())
				}
				t.Field("revision", a.GetRevision())
			})
		}),
	}
}

func evictCommand(env *cli.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "evict NAME",
		Short: "Delete an agent, which then needs a new token",
		Long: `Delete an agent. Its streams end at once, and nothing is issued to it until it has attested itself with
a new token. What was issued stays valid until it expires; the effects, which are shown first, name it. This also
ends a ban.`,
		Example: `  entente agent evict node-1 --dry-run
  entente agent evict node-1`,
		Args: cli.Arguments("NAME"),
	}
	etag := cli.Etag(cmd)
	cmd.RunE = env.Destroys(cmd).Run(
		func(args []string) string { return "Evict agent " + args[0] },
		func(ctx context.Context, member *cli.Member, args []string) (cli.Effects, error) {
			return member.Agents().EvictAgent(ctx, &ententev1.EvictAgentRequest{
				Name: args[0], Etag: *etag, DryRun: true,
			})
		},
		func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			done, err := member.Agents().EvictAgent(ctx, &ententev1.EvictAgentRequest{Name: args[0], Etag: *etag})
			if err != nil {
				return err
			}
			return env.Print(done, func(t *cli.Table) { t.Otherwise("Agent %s is evicted.", args[0]) })
		})
	return env.IfExists(cmd)
}

func banCommand(env *cli.Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ban NAME",
		Short: "Refuse an agent everything until it is evicted",
		Long: `Refuse an agent everything until it is evicted. Its streams end at once, and nothing is issued to it,
whatever it attests itself with. What was issued stays valid until it expires; the effects, which are shown first,
name it.`,
		Example: `  entente agent ban node-1`,
		Args:    cli.Arguments("NAME"),
	}
	etag := cli.Etag(cmd)
	cmd.RunE = env.Destroys(cmd).Run(
		func(args []string) string { return "Ban agent " + args[0] },
		func(ctx context.Context, member *cli.Member, args []string) (cli.Effects, error) {
			return member.Agents().BanAgent(ctx, &ententev1.BanAgentRequest{
				Name: args[0], Etag: *etag, DryRun: true,
			})
		},
		func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			done, err := member.Agents().BanAgent(ctx, &ententev1.BanAgentRequest{Name: args[0], Etag: *etag})
			if err != nil {
				return err
			}
			return env.Print(done, func(t *cli.Table) { t.Otherwise("Agent %s is banned.", args[0]) })
		})
	return env.IfExists(cmd)
}

func healthCommand(env *cli.Env) *cobra.Command {
	var socket string
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Show whether the agent on this node is ready",
		Long: `Show whether the agent on this node is attested, and what it has for its workloads. The command reads
the agent's admin socket, and fails if the agent is not ready.`,
		Example: `  entente agent health`,
		Args:    cli.Arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), env.Timeout)
			defer cancel()
			h, err := agent.ReadHealth(ctx, socket)
			if err != nil {
				return err
			}
			err = env.Print(h, func(t *cli.Table) {
				t.Field("ready", cli.YesNo(h.Ready))
				t.Field("spiffe id", h.SPIFFEID)
				if h.Expiry != nil {
					t.Field("valid until", h.Expiry.UTC().Format(time.RFC3339))
				}
				t.Field("entries", h.Entries)
				t.Field("svids", h.SVIDs)
				if h.NextExpiry != nil {
					t.Field("first expiry", h.NextExpiry.UTC().Format(time.RFC3339))
				}
			})
			if err == nil && !h.Ready {
				err = fmt.Errorf("the agent is not ready: %s", h.Reason)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&socket, "agent-socket", agent.DefaultAdmin, "admin socket of the agent")
	return cmd
}
