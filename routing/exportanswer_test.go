package routing

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"google.golang.org/protobuf/types/known/durationpb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// ownLeader is a room that leads itself.
type ownLeader struct{ *room }

func (l ownLeader) Query(_ context.Context, section string, query []byte) ([]byte, error) {
	if section != ImportSection {
		panic(section)
	}
	return l.Sightings().Answer(query)
}

// TestExportsSayWhatBecameOfThem: who exports sees what the other cluster has stored, or refuses.
func TestExportsSayWhatBecameOfThem(t *testing.T) {
	eu, us := sharingPair(t)
	eu.leader = ownLeader{eu}
	eu.has(t, "shop", "10.0.0.1:443", ententev1.Health_HEALTH_HEALTHY)
	eu.exports(t, export("shop", "us.example.org"))
	connect(t, eu, us, "eu.example.org", "us.example.org")
	shown := func() *ententev1.ServiceExport {
		eu.beat(false)
		list, err := eu.ListServiceExports(admin(t), &ententev1.ListServiceExportsRequest{})
		require.NoError(t, err)
		return list.GetExports()[0]
	}
	require.Equal(t, ententev1.ExportState_EXPORT_STATE_OFFERED, shown().GetState(), "nobody imports it yet")
	us.imports(t, "shop", "eu.example.org", "")
	eventually(t, "the answer", func() bool { return shown().GetState() == ententev1.ExportState_EXPORT_STATE_ACKNOWLEDGED })
	require.NotNil(t, shown().GetAnswerTime())

	// More than the other side takes.
	list := make([]*ententev1.Instance, maxImportedSet+1)
	for n := range list {
		list[n] = registration()
		list[n].Address = address(n)
	}
	replace(t, eu, list)
	eventually(t, "the refusal", func() bool { return shown().GetState() == ententev1.ExportState_EXPORT_STATE_REFUSED })
	require.Equal(t, refusedMany, shown().GetRefusal())

	// A new leader knows nothing, and is told again.
	eu.Sightings().Reset()
	require.Equal(t, ententev1.ExportState_EXPORT_STATE_OFFERED, shown().GetState())
	eu.beat(true)
	require.Equal(t, ententev1.ExportState_EXPORT_STATE_REFUSED, shown().GetState())

	_, err := us.UnimportService(admin(t), &ententev1.UnimportServiceRequest{Service: "shop", From: "eu.example.org"})
	require.NoError(t, err)
	eventually(t, "the other side to have ended its import", func() bool { return shown().GetState() == ententev1.ExportState_EXPORT_STATE_OFFERED })
}

func TestAnswersAreBoundedAndOrdered(t *testing.T) {
	l := newAnswerLedger()
	said := func(age time.Duration, d digest, refusal string) []*statev1.ExportAnswer {
		m := &statev1.ExportAnswer{HomeTrustDomain: "us.example.org", TrustDomain: "eu.example.org", Service: "shop", Refusal: refusal, Age: durationpb.New(age)}
		if !d.none() {
			m.Digest = d[:]
		}
		return []*statev1.ExportAnswer{m}
	}
	key := answerKey{"us.example.org", sharedKey{"eu.example.org", "shop"}}
	require.NoError(t, l.deliver(said(time.Second, digest{2}, ""), epoch))
	require.NoError(t, l.deliver(said(time.Minute, digest{1}, "foreign_id"), epoch))
	require.Equal(t, digest{2}, l.answers[key].digest, "the later answer counts, whoever reports it last")
	require.NoError(t, l.deliver(said(0, digest{}, ""), epoch))
	require.Empty(t, l.answers)
	require.Error(t, l.deliver(make([]*statev1.ExportAnswer, maxReportedAnswers+1), epoch))
	require.Equal(t, "other", refusalWord("<script>"))
	require.Equal(t, "other", refusalWord(strings.Repeat("a", 41)))
	require.Equal(t, refusedForeign, refusalWord(refusedForeign))
}
