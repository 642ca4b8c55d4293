// Package status has the command that shows the state of a cluster on one screen.
//
// It reads the state of one member as it is, so that it works without a leader. What needs a person comes first, each
// problem with the command for it; the rules are in judge.
package status

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
)

// The exit statuses of --check, which docs/operating/errors.md describes.
var checkStatus = map[severity]int{warning: 10, critical: 20}

// Report is the output for programs.
type Report struct {
	Severity string    `json:"severity"`
	Cluster  string    `json:"cluster"`
	Leader   string    `json:"leader,omitempty"`
	Revision uint64    `json:"revision,string"`
	Members  int       `json:"members"`
	Alive    int       `json:"alive"`
	Problems []Problem `json:"problems"`
}

// Command returns the command.
func Command(env *cli.Env) *cobra.Command {
	var check bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show on one screen what needs attention: members, authorities, peers, alarms",
		Long: `Show on one screen what needs attention, each problem with the command for it, and below it the members,
the authorities with their next step, and the relationships. It reads the state of the member that it calls, with or
without a leader.

With --check it prints the problems alone, and its exit status is 0 if there is none, 10 for a warning, 20 if one is
critical, and that of the error if the member does not answer.`,
		Example: `  entente status
  entente status --check || mail -s entente ops@example.org`,
		Args: cli.Arguments(),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, _ []string) error {
			f, err := read(ctx, member)
			if err != nil {
				return err
			}
			report := newReport(f)
			sections := []cli.Section{problemSection(report)}
			if !check {
				sections = append(sections, memberSection(f), authoritySection(f), relationshipSection(f))
			}
			if err := env.PrintSections(report, sections...); err != nil {
				return err
			}
			if s := worst(report.Problems); check && s > fine {
				return cli.Silent{Err: errors.New(s.String()), Status: checkStatus[s]}
			}
			return nil
		}),
	}
	cmd.Flags().BoolVar(&check, "check", false, "print the problems alone, and exit by their severity")
	return cmd
}

// read reads the state of the member.
func read(ctx context.Context, member *cli.Member) (f facts, err error) {
	stale := &ententev1.ReadOptions{Consistency: ententev1.Consistency_CONSISTENCY_STALE}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		f.members, err = member.Cluster().ListMembers(ctx, &ententev1.ListMembersRequest{Read: stale})
		return err
	})
	group.Go(func() error {
		list, err := member.Domains().ListDomains(ctx, &ententev1.ListDomainsRequest{Read: stale})
		f.domains = list.GetDomains()
		return err
	})
	group.Go(func() error {
		list, err := member.Authorities().ListAuthorities(ctx, &ententev1.ListAuthoritiesRequest{Read: stale})
		f.authorities = list.GetAuthorities()
		return err
	})
	group.Go(func() error {
		for request := (&ententev1.ListRelationshipsRequest{Read: stale}); ; {
			page, err := member.Federation().ListRelationships(ctx, request)
			if err != nil {
				return err
			}
			f.relationships = append(f.relationships, page.GetRelationships()...)
			if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
				return nil
			}
		}
	})
	return f, group.Wait()
}

func newReport(f facts) Report {
	r := Report{
		Cluster: f.members.GetClusterName(), Leader: leaderOf(f.members), Revision: f.members.GetRevision(),
		Members: len(f.members.GetMembers()), Problems: judge(f),
	}
	for _, m := range f.members.GetMembers() {
		if m.GetAlive() {
			r.Alive++
		}
	}
	if r.Problems == nil {
		r.Problems = []Problem{}
	}
	r.Severity = worst(r.Problems).String()
	return r
}

func problemSection(r Report) cli.Section {
	title := fmt.Sprintf("Cluster %s: %d of %d members alive, leader %s, revision %d.", r.Cluster, r.Alive, r.Members,
		cmp.Or(r.Leader, "none"), r.Revision)
	return cli.Section{Title: title, Fill: func(t *cli.Table) {
		t.Columns("SEVERITY", "WHAT", "PROBLEM", "COMMAND")
		t.Wrap("WHAT", "PROBLEM", "COMMAND")
		for _, p := range r.Problems {
			t.Row(p.Severity, p.Subject, p.Problem, p.Command)
		}
		t.Otherwise("Nothing needs attention.")
	}}
}

func memberSection(f facts) cli.Section {
	return cli.Section{Fill: func(t *cli.Table) {
		t.Columns("MEMBER", "ZONE", "ROLE", "ALIVE", "HEARD", "BEHIND", "CLOCK", "DISK", "ELECTS AFTER")
		for _, m := range f.members.GetMembers() {
			role := "non-voter"
			switch {
			case m.GetLeader():
				role = "leader"
			case m.GetVoter():
				role = "voter"
			}
			behind, clock, disk, election := "", "", "", ""
			if r := m.GetReport(); r != nil {
				behind = fmt.Sprint(lagOf(f.members, m))
				clock = fmt.Sprintf("%+.3fs", r.GetClockOffset().AsDuration().Seconds())
				disk = "idle"
				if d := r.GetDiskMedian(); d != nil {
					disk = d.AsDuration().Round(100 * time.Microsecond).String()
				}
				if r.GetCannotWrite() {
					disk = "cannot write"
				}
				if d := r.GetElectionTimeout(); d != nil {
					election = d.AsDuration().Round(10 * time.Millisecond).String()
				}
			}
			t.Row(
				m.GetId(), m.GetZone(), role, cli.YesNo(m.GetAlive()), cli.Since(m.GetLastContact()), behind, clock,
				disk, election,
			)
		}
	}}
}

func authoritySection(f facts) cli.Section {
	return cli.Section{Fill: func(t *cli.Table) {
		t.Columns("DOMAIN", "KIND", "ACTIVE", "EXPIRES FIRST", "PREPARED", "NEXT STEP")
		for _, d := range f.domains {
			for _, kind := range []ententev1.AuthorityKind{
				ententev1.AuthorityKind_AUTHORITY_KIND_X509, ententev1.AuthorityKind_AUTHORITY_KIND_JWT,
			} {
				active := inState(f.authorities, d.GetTrustDomain(), kind,
					ententev1.AuthorityState_AUTHORITY_STATE_ACTIVE)
				prepared := inState(f.authorities, d.GetTrustDomain(), kind,
					ententev1.AuthorityState_AUTHORITY_STATE_PREPARED)
				var first, next *ententev1.Authority
				for _, a := range active {
					if first == nil || a.GetNotAfter().AsTime().Before(first.GetNotAfter().AsTime()) {
						first = a
					}
				}
				for _, a := range prepared {
					if next == nil || a.GetNextTime().AsTime().Before(next.GetNextTime().AsTime()) {
						next = a
					}
				}
				step := ""
				if next != nil {
					step = "a prepared one may sign " + cmp.Or(cli.Since(next.GetNextTime()), "once it is known")
				}
				t.Row(
					d.GetTrustDomain(), cli.EnumName(kind), len(active), cli.Since(first.GetNotAfter()), len(prepared),
					step,
				)
			}
		}
		t.Otherwise("No hosted trust domain is visible to you.")
	}}
}

func relationshipSection(f facts) cli.Section {
	return cli.Section{Fill: func(t *cli.Table) {
		t.Columns("PEER", "STATE", "FRESHNESS", "SEQUENCE", "LAST SUCCESS", "STREAM", "ALARMS")
		for _, r := range f.relationships {
			stream := ""
			if r.GetPeer() != nil {
				stream = "down"
			}
			if connected(r) {
				stream = "up"
			}
			t.Row(
				r.GetTrustDomain(), cli.EnumName(r.GetState()), cli.EnumName(r.GetFreshness()),
				cli.Sequence(r.Sequence), cmp.Or(cli.Since(r.GetLastSuccessTime()), "never"), stream,
				len(r.GetAlarms()),
			)
		}
		t.Otherwise("There is no relationship with another domain.")
	}}
}
