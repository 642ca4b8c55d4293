package status

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

func three(change func(*ententev1.ListMembersResponse)) facts {
	list := &ententev1.ListMembersResponse{Revision: 5000}
	for _, id := range []string{"eu-1", "eu-2", "eu-3"} {
		list.Members = append(list.Members, &ententev1.Member{
			Id: id, Voter: true, Alive: true, Leader: id == "eu-1",
			Report: &ententev1.MemberReport{AppliedRevision: 4990},
		})
	}
	change(list)
	return facts{members: list}
}

func with(change func(*ententev1.Relationship)) facts {
	f := three(func(*ententev1.ListMembersResponse) {})
	r := &ententev1.Relationship{
		TrustDomain: "us.example.org", State: ententev1.RelationshipState_RELATIONSHIP_STATE_ACTIVE,
		Freshness: ententev1.Freshness_FRESHNESS_FRESH,
	}
	change(r)
	f.relationships = []*ententev1.Relationship{r}
	return f
}

func TestJudge(t *testing.T) {
	type members = ententev1.ListMembersResponse
	for name, test := range map[string]struct {
		facts facts
		want  []string
	}{
		"all is well": {three(func(*members) {}), nil},
		"no leader": {
			three(func(l *members) { l.Members[0].Leader = false }),
			[]string{"critical cluster has no leader: nothing can be changed; reads are this member's state" +
				" (entente cluster members --stale)"},
		},
		"one member is gone": {
			three(func(l *members) { l.Members[2].Alive = false }),
			[]string{
				"critical cluster has 2 of 3 voters: with one less nothing can be changed (entente cluster members)",
				"warning eu-3 is not alive, last heard of never (entente cluster members)",
			},
		},
		"a full disk": {
			three(func(l *members) { l.Members[1].Report.CannotWrite = true }),
			[]string{"critical eu-2 cannot write: its disk is full, hangs or failed (df, dmesg on eu-2)"},
		},
		"a slow disk": {
			three(func(l *members) { l.Members[1].Report.DiskMedian = durationpb.New(300 * time.Millisecond) }),
			[]string{"warning eu-2 has a slow disk: half of its writes take more than 300ms" +
				" (see docs/operating/run-book.md)"},
		},
		"a clock that is off": {
			three(func(l *members) { l.Members[1].Report.ClockOffset = durationpb.New(-7 * time.Second) }),
			[]string{"warning eu-2 has a clock that is off by 7s (chronyc tracking on eu-2)"},
		},
		"a clock that stops it": {
			three(func(l *members) { l.Members[1].Report.ClockOffset = durationpb.New(time.Hour) }),
			[]string{"critical eu-2 has a clock that is off by 1h0m0s: it does not sign (chronyc tracking on eu-2)"},
		},
		"one that is behind": {
			three(func(l *members) { l.Members[1].Report.AppliedRevision = 10 }),
			[]string{"warning eu-2 is 4990 revisions behind (see docs/operating/run-book.md)"},
		},
		"another state": {
			three(func(l *members) { l.Members[1].Diverged = true }),
			[]string{"critical eu-2 has another state than the other members (entente cluster repair eu-2)"},
		},
		"a joiner": {
			three(func(l *members) { l.AwaitingApproval = []*ententev1.Member{{Id: "eu-4"}} }),
			[]string{"warning eu-4 waits for approval to join (entente cluster approve eu-4)"},
		},
		"a domain that nobody signs for": {
			facts{
				members: three(func(*members) {}).members,
				domains: []*ententev1.Domain{{TrustDomain: "eu.example.org"}},
				authorities: []*ententev1.Authority{{
					TrustDomain: "eu.example.org", Kind: ententev1.AuthorityKind_AUTHORITY_KIND_X509,
					State: ententev1.AuthorityState_AUTHORITY_STATE_ACTIVE,
				}},
			},
			[]string{"critical eu.example.org has no active jwt authority: nobody gets such an SVID" +
				" (entente authority list eu.example.org)"},
		},
		"fresh": {with(func(*ententev1.Relationship) {}), nil},
		"stale": {
			with(func(r *ententev1.Relationship) {
				r.Freshness, r.LastResult, r.LastError = ententev1.Freshness_FRESHNESS_STALE, "network", "refused"
			}),
			[]string{"warning us.example.org has a stale bundle (network), last confirmed never" +
				" (entente federation show us.example.org)"},
		},
		"expired": {
			with(func(r *ententev1.Relationship) { r.Freshness = ententev1.Freshness_FRESHNESS_EXPIRED }),
			[]string{"critical us.example.org has an expired bundle: its callers are refused" +
				" (entente federation show us.example.org)"},
		},
		"an alarm, worst first": {
			with(func(r *ententev1.Relationship) {
				r.Freshness = ententev1.Freshness_FRESHNESS_BOOTSTRAP
				r.Alarms = []*ententev1.RelationshipAlarm{{Name: "split_view", Sequence: 4}}
			}),
			[]string{
				"critical us.example.org has the alarm split_view at sequence 4" +
					" (entente federation show us.example.org)",
				"warning us.example.org has the bundle of its bootstrap: no endpoint has confirmed it yet" +
					" (entente federation show us.example.org)",
			},
		},
		"suspended by an operator": {
			with(func(r *ententev1.Relationship) {
				r.State = ententev1.RelationshipState_RELATIONSHIP_STATE_SUSPENDED
				r.Freshness = ententev1.Freshness_FRESHNESS_EXPIRED
			}), nil,
		},
		"ended by the other side": {
			with(func(r *ententev1.Relationship) {
				r.State = ententev1.RelationshipState_RELATIONSHIP_STATE_ENDED
			}),
			[]string{"warning us.example.org was ended by the other side (entente federation delete us.example.org)"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, p := range judge(test.facts) {
				got = append(got, p.Severity+" "+p.Subject+" "+p.Problem+" ("+p.Command+")")
			}
			require.Equal(t, test.want, got)
		})
	}
}
