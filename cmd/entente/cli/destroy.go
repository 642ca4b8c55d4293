package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// Destruction is a command that destroys something: it shows what the call would do, as the member computes it, and
// asks before it makes the call.
type Destruction struct {
	env         *Env
	yes, dryRun bool
}

// Destroys adds --yes and --dry-run to a command that destroys something.
func (env *Env) Destroys(cmd *cobra.Command) *Destruction {
	d := &Destruction{env: env}
	cmd.Flags().BoolVar(&d.yes, "yes", false, "do it without asking")
	cmd.Flags().BoolVar(&d.dryRun, "dry-run", false, "show the effect, and do nothing")
	return d
}

// Previews adds --dry-run to a command that scripts run and that one other command undoes. The command needs no
// confirmation.
func (env *Env) Previews(cmd *cobra.Command) *Destruction {
	d := &Destruction{env: env, yes: true}
	cmd.Flags().BoolVar(&d.dryRun, "dry-run", false, "show the effect, and do nothing")
	return d
}

// Effects is the response to a dry run.
type Effects interface {
	GetEffects() []*ententev1.Effect
}

// Run returns a RunE that connects, shows the effect that the dry run preview returns, asks, and runs action. question
// is what is done, such as "Delete trust domain pay.example.org". Both calls have --timeout for themselves. With --yes
// there is no dry run.
func (d *Destruction) Run(
	question func(args []string) string,
	preview func(ctx context.Context, member *Member, args []string) (Effects, error),
	action Action,
) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		env := d.env
		within := func(f func(context.Context) error) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), env.Timeout)
			defer cancel()
			return f(ctx)
		}
		return env.Connected(func(member *Member) error {
			if !d.yes || d.dryRun {
				var effects Effects
				err := within(func(ctx context.Context) (err error) {
					effects, err = preview(ctx, member, args)
					return err
				})
				if err != nil {
					return err
				}
				if d.dryRun {
					return env.Print(effects, effectsTable(effects))
				}
				if err := d.confirm(cmd.Context(), question(args), effects); err != nil {
					return err
				}
			}
			return within(func(ctx context.Context) error { return action(ctx, member, cmd, args) })
		})
	}
}

// confirm shows the effects on standard error and asks.
func (d *Destruction) confirm(ctx context.Context, question string, effects Effects) error {
	env := d.env
	if env.Terminal || env.Output == OutputTable {
		t := &Table{}
		effectsTable(effects)(t)
		if err := t.write(env.Stderr); err != nil {
			return err
		}
	}
	if !env.Terminal {
		return Usagef("nothing was changed, because there is no terminal to ask '%s?': add --yes to do it, or "+
			"--dry-run to see the effect", question)
	}
	fmt.Fprintf(env.Stderr, "%s? Type yes: ", Printable(question))
	answer := make(chan string, 1)
	go func() { // it ends with the process, if nobody answers
		line, err := bufio.NewReader(env.Stdin).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			line = ""
		}
		answer <- strings.TrimSpace(line)
	}()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case line := <-answer:
		if line != "yes" {
			return errors.New("nothing was changed: the answer was not yes")
		}
		return nil
	}
}

// effectsTable returns what prints effects.
func effectsTable(effects Effects) func(*Table) {
	return func(t *Table) {
		t.Columns("WHAT", "WHICH", "WHEN", "EFFECT")
		t.Wrap("WHICH", "EFFECT")
		for _, e := range effects.GetEffects() {
			t.Row(e.GetKind(), e.GetSubject(), cmp.Or(Time(e.GetTime()), "at once"), e.GetDetail())
		}
		t.Otherwise("Nothing else depends on it.")
	}
}
