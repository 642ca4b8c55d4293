package status

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
)

// severity is how much a problem matters.
type severity int

const (
	fine severity = iota
	// warning is a problem that takes nothing away yet.
	warning
	// critical is a problem that callers notice, or will if nothing is done.
	critical
)

func (s severity) String() string { return [...]string{"ok", "warning", "critical"}[s] }

// Problem is something that needs a person, with the command that shows or solves it.
type Problem struct {
	Severity string `json:"severity"`
	Subject  string `json:"subject"`
	Problem  string `json:"problem"`
	Command  string `json:"command"`

	rank severity
}

// facts are what the members report.
type facts struct {
	members       *ententev1.ListMembersResponse
	domains       []*ententev1.Domain
	authorities   []*ententev1.Authority
	relationships []*ententev1.Relationship
}

const (
	// clockWarns is far beyond what synchronized clocks differ by. A member whose clock differs by clockStops signs
	// nothing any more.
	clockWarns, clockStops = 5 * time.Second, 5 * time.Minute
	// lagWarns is more than a member is behind between two heartbeats.
	lagWarns = 2000
	// diskWarns is slow for every kind of disk.
	diskWarns = 250 * time.Millisecond
)

// judge returns the problems, the worst first.
func judge(f facts) []Problem {
	var found []Problem
	add := func(rank severity, subject, command, format string, args ...any) {
		found = append(found, Problem{rank.String(), subject, fmt.Sprintf(format, args...), command, rank})
	}
	judgeMembers(f.members, add)
	judgeAuthorities(f, add)
	for _, r := range f.relationships {
		judgeRelationship(r, add)
	}
	slices.SortStableFunc(found, func(a, b Problem) int { return cmp.Compare(b.rank, a.rank) })
	return found
}

type adder func(rank severity, subject, command, format string, args ...any)

func judgeMembers(list *ententev1.ListMembersResponse, add adder) {
	const show = "entente cluster members"
	if leaderOf(list) == "" {
		add(critical, "cluster", show+" --stale",
			"has no leader: nothing can be changed; reads are this member's state")
	}
	voters, alive := 0, 0
	for _, m := range list.GetMembers() {
		id := m.GetId()
		if m.GetVoter() {
			voters++
		}
		if m.GetVoter() && m.GetAlive() {
			alive++
		}
		if !m.GetAlive() {
			add(warning, id, show, "is not alive, last heard of %s", cmp.Or(cli.Since(m.GetLastContact()), "never"))
		}
		if m.GetDiverged() {
			add(critical, id, "entente cluster repair "+id, "has another state than the other members")
		}
		if m.GetRepairing() {
			add(warning, id, show, "is being rebuilt, and has no vote")
		}
		judgeReport(list, m, add)
	}
	if majority := voters/2 + 1; voters > 0 && alive == majority && alive < voters {
		add(critical, "cluster", show, "has %d of %d voters: with one less nothing can be changed", alive, voters)
	}
	for _, m := range list.GetAwaitingApproval() {
		add(warning, m.GetId(), "entente cluster approve "+m.GetId(), "waits for approval to join")
	}
}

func judgeReport(list *ententev1.ListMembersResponse, m *ententev1.Member, add adder) {
	r, id := m.GetReport(), m.GetId()
	if r == nil {
		return
	}
	const remedy = "see docs/operating/run-book.md"
	if r.GetCannotWrite() {
		add(critical, id, "df, dmesg on "+id, "cannot write: its disk is full, hangs or failed")
	}
	switch offset := r.GetClockOffset().AsDuration().Abs(); {
	case offset >= clockStops:
		add(critical, id, "chronyc tracking on "+id, "has a clock that is off by %v: it does not sign",
			offset.Round(time.Second))
	case offset >= clockWarns:
		add(warning, id, "chronyc tracking on "+id, "has a clock that is off by %v", offset.Round(time.Second))
	}
	if lag := lagOf(list, m); m.GetAlive() && lag > lagWarns {
		add(warning, id, remedy, "is %d revisions behind", lag)
	}
	if d := r.GetDiskMedian().AsDuration(); d >= diskWarns {
		add(warning, id, remedy, "has a slow disk: half of its writes take more than %v", d.Round(time.Millisecond))
	}
}

// lagOf returns how many revisions a member was behind at its last heartbeat.
func lagOf(list *ententev1.ListMembersResponse, m *ententev1.Member) uint64 {
	applied := m.GetReport().GetAppliedRevision()
	return list.GetRevision() - min(applied, list.GetRevision())
}

func leaderOf(list *ententev1.ListMembersResponse) string {
	for _, m := range list.GetMembers() {
		if m.GetLeader() {
			return m.GetId()
		}
	}
	return ""
}

func judgeAuthorities(f facts, add adder) {
	for _, d := range f.domains {
		for _, kind := range []ententev1.AuthorityKind{
			ententev1.AuthorityKind_AUTHORITY_KIND_X509, ententev1.AuthorityKind_AUTHORITY_KIND_JWT,
		} {
			active := inState(f.authorities, d.GetTrustDomain(), kind,
				ententev1.AuthorityState_AUTHORITY_STATE_ACTIVE)
			if len(active) == 0 {
				add(critical, d.GetTrustDomain(), "entente authority list "+d.GetTrustDomain(),
					"has no active %s authority: nobody gets such an SVID", cli.EnumName(kind))
			}
		}
	}
	for _, a := range f.authorities {
		if a.GetState() == ententev1.AuthorityState_AUTHORITY_STATE_TAINTED {
			add(warning, a.GetTrustDomain(), "entente authority revoke "+a.GetId(),
				"has the tainted %s authority %s: what it signed still counts", cli.EnumName(a.GetKind()), a.GetId())
		}
		for _, p := range a.GetUnacknowledged() {
			if p.GetRefusal() != "" {
				add(warning, a.GetTrustDomain(), "entente authority list "+a.GetTrustDomain(),
					"has a new authority that %s refuses (%s)", p.GetHomeTrustDomain(), p.GetRefusal())
			}
		}
	}
}

func inState(
	all []*ententev1.Authority, td string, kind ententev1.AuthorityKind, state ententev1.AuthorityState,
) (out []*ententev1.Authority) {
	for _, a := range all {
		if a.GetTrustDomain() == td && a.GetKind() == kind && a.GetState() == state {
			out = append(out, a)
		}
	}
	return out
}

func judgeRelationship(r *ententev1.Relationship, add adder) {
	td := r.GetTrustDomain()
	show := "entente federation show " + td
	for _, alarm := range r.GetAlarms() {
		add(critical, td, show, "has the alarm %s at sequence %d", alarm.GetName(), alarm.GetSequence())
	}
	switch r.GetState() {
	case ententev1.RelationshipState_RELATIONSHIP_STATE_SUSPENDED:
		return // by an operator
	case ententev1.RelationshipState_RELATIONSHIP_STATE_PENDING:
		add(warning, td, show, "waits for the approval of an agreement")
		return
	case ententev1.RelationshipState_RELATIONSHIP_STATE_ENDED:
		add(warning, td, "entente federation delete "+td, "was ended by the other side")
		return
	default:
	}
	because := ""
	if r.GetLastError() != "" {
		because = fmt.Sprintf(" (%s)", r.GetLastResult())
	}
	switch r.GetFreshness() {
	case ententev1.Freshness_FRESHNESS_EXPIRED:
		add(critical, td, show, "has an expired bundle%s: its callers are refused", because)
	case ententev1.Freshness_FRESHNESS_UNSPECIFIED:
		add(critical, td, show, "has no bundle yet%s: its callers are refused", because)
	case ententev1.Freshness_FRESHNESS_STALE:
		add(warning, td, show, "has a stale bundle%s, last confirmed %s", because,
			cmp.Or(cli.Since(r.GetLastSuccessTime()), "never"))
	case ententev1.Freshness_FRESHNESS_BOOTSTRAP:
		add(warning, td, show, "has the bundle of its bootstrap%s: no endpoint has confirmed it yet", because)
	default:
		if because != "" && !connected(r) {
			add(warning, td, show, "was not refreshed at the last attempt%s", because)
		}
	}
	if r.GetPeer() != nil && len(r.GetStreams()) > 0 && !connected(r) {
		add(warning, td, show, "has no stream with %s", r.GetPeer().GetHomeTrustDomain())
	}
}

func connected(r *ententev1.Relationship) bool {
	return slices.ContainsFunc(r.GetStreams(), (*ententev1.PeerStream).GetConnected)
}

// worst returns the highest severity.
func worst(problems []Problem) (s severity) {
	for _, p := range problems {
		s = max(s, p.rank)
	}
	return s
}
