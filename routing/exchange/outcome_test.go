package exchange

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore/membership/memory"
	"github.com/ententehq/entente/routing/routingtest"
)

// ownLeader makes a member its own leader.
type ownLeader struct{ *member }

func (l ownLeader) Query(_ context.Context, section string, query []byte) ([]byte, error) {
	if section != OutcomeSection {
		panic(section)
	}
	return l.Outcomes.Answer(query)
}

// heartbeat delivers the reports of a member to itself.
func (m *member) heartbeat(full bool) {
	if report := m.Liveness.Collect(full); report != nil {
		m.Liveness.Deliver("member-1", report)
	}
	if report := m.Outcomes.Collect(full); report != nil {
		m.Outcomes.Deliver("member-1", report)
	}
}

// TestExportsHaveOutcomes: the exporting cluster sees whether the other cluster has stored or refused a set.
func TestExportsHaveOutcomes(t *testing.T) {
	eu, us := newPair(t)
	eu.Outcomes.leader = ownLeader{eu}
	eu.register(t, "shop", "10.0.0.1:443", ententev1.Health_HEALTH_HEALTHY)
	eu.exports(t, export("shop", "us.example.org"))
	connect(t, eu, us, "eu.example.org", "us.example.org")
	exported := func() *ententev1.ServiceExport {
		eu.heartbeat(false)
		list, err := eu.ListServiceExports(routingtest.Admin(t), &ententev1.ListServiceExportsRequest{})
		require.NoError(t, err)
		return list.GetExports()[0]
	}
	inState := func(state ententev1.ExportState) func() bool {
		return func() bool { return exported().GetState() == state }
	}
	require.Equal(t, ententev1.ExportState_EXPORT_STATE_OFFERED, exported().GetState(), "it is not imported yet")
	us.imports(t, "shop", "eu.example.org", "")
	routingtest.Eventually(t, "the acknowledgement", inState(ententev1.ExportState_EXPORT_STATE_ACKNOWLEDGED))
	require.NotNil(t, exported().GetAnswerTime())

	// More instances than the other cluster accepts.
	list := make([]*ententev1.Instance, maxImportedSet+1)
	for n := range list {
		list[n] = routingtest.Registration()
		list[n].Address = address(n)
	}
	eu.replace(t, list)
	routingtest.Eventually(t, "the refusal", inState(ententev1.ExportState_EXPORT_STATE_REFUSED))
	require.Equal(t, refusedMany, exported().GetRefusal())

	// A new leader knows nothing, and receives everything again.
	eu.Outcomes.Reset()
	require.Equal(t, ententev1.ExportState_EXPORT_STATE_OFFERED, exported().GetState())
	eu.heartbeat(true)
	require.Equal(t, ententev1.ExportState_EXPORT_STATE_REFUSED, exported().GetState())

	_, err := us.UnimportService(routingtest.Admin(t),
		&ententev1.UnimportServiceRequest{Service: "shop", From: "eu.example.org"})
	require.NoError(t, err)
	routingtest.Eventually(t, "the end of the import", inState(ententev1.ExportState_EXPORT_STATE_OFFERED))
}

func TestOutcomesAreBoundedAndOrdered(t *testing.T) {
	o := newMember(t, "eu.example.org").Outcomes
	key := outcomeKey{"us.example.org", setKey{"eu.example.org", "shop"}}
	deliver := func(age time.Duration, version digest, refusal string) {
		report, err := o.encode([]memory.Entry[outcomeKey, outcome]{
			{Key: key, Value: outcome{version, refusal, o.now().Add(-age)}},
		})
		require.NoError(t, err)
		o.Deliver("member-1", report)
	}
	deliver(time.Second, digest{2}, "")
	deliver(time.Minute, digest{1}, "foreign_id")
	received, ok := o.Received.Get(key)
	require.True(t, ok)
	require.Equal(t, digest{2}, received.digest, "the later outcome counts, in whatever order reports arrive")
	deliver(0, digest{}, "")
	require.Empty(t, o.Received.All())

	report, err := o.encode(make([]memory.Entry[outcomeKey, outcome], maxReportedOutcomes+1))
	require.NoError(t, err)
	_, err = o.decode(report, maxReportedOutcomes)
	require.EqualError(t, err, "it has 1001 outcomes; 1000 are allowed")
	require.Equal(t, "other", reasonWord("<script>"))
	require.Equal(t, "other", reasonWord(strings.Repeat("a", 41)))
	require.Equal(t, refusedForeign, reasonWord(refusedForeign))
}

// TestOutcomesEndWithTheStream: a member does not report outcomes of a peer to which it has no stream any more.
func TestOutcomesEndWithTheStream(t *testing.T) {
	m := newExporter(t)
	stream := Stream{Home: "us.example.org", Wake: func() {}, Domains: func() []string { return nil }}
	one, two := m.NewSync(stream), m.NewSync(stream)
	m.Outcomes.set("us.example.org", setKey{"eu.example.org", "shop"}, digest{1}, "")
	m.syncs.remove(one)
	require.NotNil(t, m.Outcomes.Collect(true))
	m.syncs.remove(two)
	require.Nil(t, m.Outcomes.Collect(true))
}
