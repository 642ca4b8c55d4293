// Package sync has the command that keeps bundles in the files of a folder.
//
// The bundles come by a watch (client.BundleSource), which outlives outages; the files are written by bundle/publish. A
// command tells the readers of the files.
package sync

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/publish"
	"github.com/ententehq/entente/client"
	"github.com/ententehq/entente/cmd/entente/cli"
)

const (
	// writeRetry is the pause before files are written again that could not be: the disk was full, for example.
	writeRetry = 10 * time.Second
	// defaultExecTimeout is how long a command may run.
	defaultExecTimeout = time.Minute
)

// options are the flags of the command, parsed.
type options struct {
	dir     string
	formats []bundle.Format
	domains []spiffeid.TrustDomain
	exec    string
	timeout time.Duration
	once    bool
}

// Command returns the command.
func Command(env *cli.Env) *cobra.Command {
	var o options
	var formats, domains []string
	cmd := &cobra.Command{
		Use:   "sync --dir DIR",
		Short: "Keep bundles in files, and run a command when they change",
		Long: `Keep bundles in the files of a folder, for programs that read files: proxies, gateways, verifiers of
tokens. The folder is made if it does not exist. For each trust domain that the caller may see, or that --domain
names, it holds

  DOMAIN.spiffe.json  the SPIFFE bundle document            (--format spiffe)
  DOMAIN.pem          the X.509 authorities                 (--format pem)
  DOMAIN.jwks.json    the JWT keys as a JWK Set (RFC 7517)  (--format jwks)
  bundle-map.json     the SPIFFE bundle map of all of them  (--format map)

Files change within moments of the cluster's bundles: only those whose bytes differ, each as a whole. When trust in a
domain ends, its files are removed, and so are those of a domain that --domain names no longer: the folder remembers
what the command wrote, and nothing else is ever touched. While no member can be reached, the files stay as they are;
with several addresses in --address the command goes on to the next member.

--exec runs a command by /bin/sh after changes, with the folder in ENTENTE_SYNC_DIR: never twice at a time, and once
more for changes that came while it ran. One that fails is reported, and runs again after the next change or start.

The command runs until it is interrupted or terminated (SIGTERM), which is status 0. It tells systemd (Type=notify)
when the files are complete for the first time. With --once it writes the files and ends; the status tells whether
all of it succeeded.`,
		Example: `  entente sync --dir /etc/nginx/trust --format pem --exec /usr/local/sbin/reload-nginx
  entente sync --dir /run/bundles --format spiffe,map --domain us.example.org --domain ap.example.org
  entente sync --dir /tmp/bundles --once`,
		Args:    cli.Arguments(),
		PreRunE: cli.Required("dir"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.parse(formats, domains); err != nil {
				return err
			}
			if !o.once {
				return env.Stream(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
					return run(ctx, env, member, o)
				})(cmd, args)
			}
			return env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
				return run(ctx, env, member, o)
			})(cmd, args)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "", "`FOLDER` to write to")
	f.StringSliceVar(&formats, "format", []string{"spiffe", "pem"}, "what to write: "+formatNames())
	cli.FlagValues(cmd, "format", strings.Split(formatNames(), ", ")...)
	f.StringSliceVar(&domains, "domain", nil, "trust `DOMAIN` to write; can be repeated (default: all)")
	f.StringVar(&o.exec, "exec", "", "`COMMAND` to run by /bin/sh after a change")
	f.DurationVar(&o.timeout, "exec-timeout", defaultExecTimeout, "how long COMMAND may run")
	f.BoolVar(&o.once, "once", false, "write the files, and end")
	return cmd
}

func formatNames() string {
	names := make([]string, len(bundle.Formats))
	for i, f := range bundle.Formats {
		names[i] = string(f)
	}
	return strings.Join(names, ", ")
}

func (o *options) parse(formats, domains []string) error {
	for _, name := range formats {
		f, err := bundle.ParseFormat(name)
		if err != nil {
			return cli.Usagef("--format %q is not one of %s", name, formatNames())
		}
		o.formats = append(o.formats, f)
	}
	for _, name := range domains {
		if err := cli.BareDomain("--domain", name); err != nil {
			return err
		}
		td, err := bundle.ParseTrustDomain(name)
		if err != nil {
			return cli.Usagef("--domain %q is not the name of a trust domain", name)
		}
		o.domains = append(o.domains, td)
	}
	if len(o.formats) == 0 {
		return cli.Usagef("--format is empty: name some of %s", formatNames())
	}
	if o.timeout <= 0 {
		return cli.Usagef("--exec-timeout %s must be above zero, such as 1m", o.timeout)
	}
	return nil
}

// run keeps the folder until ctx ends, or writes it once.
func run(ctx context.Context, env *cli.Env, member *cli.Member, o options) (err error) {
	folder, err := publish.OpenFolder(o.dir, o.exec != "")
	if err != nil {
		return fmt.Errorf("--dir %s: %w", o.dir, err)
	}
	defer func() { err = errors.Join(err, folder.Close()) }()
	s := &syncer{options: o, folder: folder, to: env.Stderr, command: command{o, env.Stdout, env.Stderr}}
	source, err := client.NewBundleSource(ctx, member, client.BundleSourceConfig{
		TrustDomains: o.domains,
		OnEvent: func(e client.Event) {
			message := e.Message
			if e.Err != nil {
				message += ": " + cli.Sentence(e.Err)
			}
			s.report("the folder %s", cli.Printable(message))
		},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	s.source = source
	if o.once {
		return s.runOnce(ctx)
	}
	s.runUntil(ctx, func() error {
		_, err := daemon.SdNotify(false, daemon.SdNotifyReady)
		return err
	})
	return nil
}
