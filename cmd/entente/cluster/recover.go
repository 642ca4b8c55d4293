package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"github.com/ententehq/entente/cmd/entente/cli"
	"github.com/ententehq/entente/node/config"
	"github.com/ententehq/entente/node/recovery"
)

func recoverCommand(env *cli.Env) *cobra.Command {
	var file, cluster string
	var floor uint64
	cmd := &cobra.Command{
		Use:   "recover --config FILE [--cluster NAME] [--sequence-floor N]",
		Short: "Make a cluster of one of a stopped member, after a majority of the disks was lost",
		Long: `Make a cluster of this member alone, out of all that its data folder has, after a majority of the
members' disks was lost for good. Choose the surviving member with the highest index. It must be stopped.

What other members had acknowledged and this one does not have is lost. What it has and no majority had becomes
committed. The identity keys of the other members are struck out: a survivor that comes back is refused, and joins
anew with an empty data folder and a new token. The signing keys of this member continue.

The command refuses while a member answers at an address that this one knows. It shows what the member has and asks
for the name of the cluster, which a script gives with --cluster. The sequences of hosted bundles continue above those
on this disk, above those that peers have reported to it, and above the present time in milliseconds, so that peers see
no rollback.

The recovery is one write: after a crash, run the command again. It takes effect when the member is started.`,
		Example: `  entente cluster recover --config /etc/entente/entente.hcl`,
		Args:    cli.Arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return cli.Usagef("--config is missing: name the configuration file of the stopped member")
			}
			cfg, err := config.Load(file)
			if err != nil {
				return err
			}
			return recoverCluster(cmd.Context(), env, cfg, cluster, floor)
		},
	}
	f := cmd.Flags()
	f.StringVar(&file, "config", "", "configuration `FILE` of the stopped member")
	f.StringVar(&cluster, "cluster", "", "the `NAME` of the cluster, in place of the question")
	f.Uint64Var(&floor, "sequence-floor", 0, "the `N` from which the sequences of hosted bundles continue, in place "+
		"of the clock")
	return cmd
}

func recoverCluster(ctx context.Context, env *cli.Env, cfg *config.Config, cluster string, floor uint64) (err error) {
	member, err := recovery.Open(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, member.Close()) }()
	report, now := member.Report(), time.Now()
	floor, err = member.Floor(floor, now)
	if err != nil {
		return err
	}
	if err := member.Answering(ctx); err != nil {
		return err
	}
	printReport(env.Stderr, report, now)
	if err := confirm(env, report.Cluster, cluster, interactive(env.Stdin)); err != nil {
		return err
	}
	done, err := member.Recover(floor, now)
	if err != nil {
		return err
	}
	return env.Print(done, func(t *cli.Table) {
		t.Otherwise("Cluster %s is member %s alone now. Start it: sequences continue from %d. Then let further "+
			"members join with new tokens.", done.Cluster, done.Member, done.SequenceFloor)
	})
}

// printReport shows what a recovery keeps and what it can lose.
func printReport(w io.Writer, r recovery.Report, now time.Time) {
	at := func(t time.Time) string {
		if t.IsZero() {
			return "not recorded"
		}
		return fmt.Sprintf("%s (%s)", t.UTC().Format(time.RFC3339), cli.Ago(now.Sub(t)))
	}
	fmt.Fprintf(w, "Member %s of cluster %s (%s)\n", r.Member, r.Cluster, r.ClusterID)
	fmt.Fprintf(w, "  last index           %d\n", r.LastIndex)
	fmt.Fprintf(w, "  last entry           %s\n", at(r.LastEntry))
	fmt.Fprintf(w, "  last leader contact  %s\n", at(r.LastContact))
	fmt.Fprintf(w, "  highest sequence     %d\n", r.HighestSequence)
	if r.SeenSequence > 0 {
		fmt.Fprintf(w, "  seen by peers        %d (by %s)\n", r.SeenSequence, r.SeenBy)
	}
	fmt.Fprintln(w)
	fmt.Fprintln(w, "Entries after that index may be lost that other members had acknowledged. Entries up to it "+
		"become committed, also those that no majority had.")
	if len(r.Others) > 0 {
		fmt.Fprintf(w, "The identity keys of %s are struck out. Their data folders are of no use afterwards.\n",
			recovery.Names(r.Others))
	}
	fmt.Fprintln(w)
}

// interactive reports whether somebody can answer a question.
func interactive(in io.Reader) bool {
	f, ok := in.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// confirm returns nil if the name of the cluster was given, on the command line or as the answer to a question.
func confirm(env *cli.Env, name, given string, interactive bool) error {
	if given == "" {
		if !interactive {
			return cli.Usagef("there is no terminal to ask for the name of the cluster: give --cluster NAME")
		}
		fmt.Fprint(env.Stderr, "Type the name of the cluster to recover it: ")
		line, err := bufio.NewReader(io.LimitReader(env.Stdin, 1024)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read the name of the cluster: %w", err)
		}
		given = strings.TrimSpace(line)
	}
	if given != name {
		return fmt.Errorf("the cluster is %q, not %q: nothing was changed", name, given)
	}
	return nil
}
