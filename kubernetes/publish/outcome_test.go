package publish

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/kubernetes/api/v1alpha1"
	"github.com/ententehq/entente/kubernetes/publish/plan"
)

func condition(t *testing.T, s v1alpha1.PublicationStatus, kind string) (status, reason, message string) {
	t.Helper()
	c := meta.FindStatusCondition(s.Conditions, kind)
	require.NotNil(t, c)
	return string(c.Status), c.Reason, c.Message
}

// TestStatus follows a status from a success over an error to the next success.
func TestStatus(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	sequence := uint64(1<<64 - 1) // which no number of JSON holds
	b, err := bundle.New(spiffeid.RequireTrustDomainFromString("eu.example.org"), bundle.Content{Sequence: &sequence})
	require.NoError(t, err)
	good := outcome{plan: plan.Plan{Bundles: []*bundle.Bundle{b}, Absent: []string{"gone.example.org"}}, changed: true}
	var s v1alpha1.PublicationStatus
	good.status(&s, 1, nil, start)
	status, reason, message := condition(t, s, v1alpha1.ConditionPublished)
	require.Equal(t, []string{
		"True", "Published",
		"Every object holds the present bundles. Entente shows the controller no bundle of gone.example.org.",
	}, []string{status, reason, message})
	require.Equal(t, "18446744073709551615", s.Bundles[0].Sequence)
	require.True(t, s.LastChangeTime.Time.Equal(start))

	// The same again writes nothing, an hour later too.
	good.changed = false
	again := *s.DeepCopy()
	good.status(&again, 1, nil, start.Add(time.Hour))
	require.Equal(t, s, again)

	// An error leaves the bundles that were written last, and the same error again writes nothing.
	bad := outcome{problems: []problem{{v1alpha1.ReasonForbidden, "The controller lacks a right."}}}
	bad.status(&s, 1, errors.New("no member"), start.Add(time.Minute))
	_, reason, message = condition(t, s, v1alpha1.ConditionPublished)
	require.Equal(t, []string{"Forbidden", "The controller lacks a right."}, []string{reason, message})
	_, reason, message = condition(t, s, v1alpha1.ConditionCurrent)
	require.Equal(t, []string{
		"Disconnected", "The bundles are those before the connection to Entente broke: no member.",
	}, []string{reason, message})
	require.Len(t, s.Bundles, 1)
	require.True(t, s.LastErrorTime.Time.Equal(start.Add(time.Minute)))
	again = *s.DeepCopy()
	bad.status(&again, 1, errors.New("no member"), start.Add(time.Hour))
	require.Equal(t, s, again)

	// After it the bundle has kept its age, and the error can still be read.
	good.status(&s, 1, nil, start.Add(2*time.Hour))
	status, _, _ = condition(t, s, v1alpha1.ConditionPublished)
	require.Equal(t, "True", status)
	require.True(t, s.Bundles[0].Since.Time.Equal(start))
	require.Equal(t, "The controller lacks a right.", s.LastError)
}

func TestProblems(t *testing.T) {
	var o outcome
	for range 7 {
		o.problems = append(o.problems, problem{v1alpha1.ReasonRefused, strings.Repeat("ä", 500)})
	}
	require.False(t, o.failed(), "a refusal lasts until something changes")
	require.Less(t, len(o.text()), 5*700)
	require.True(t, strings.HasSuffix(o.text(), "… There are 2 more."))
	o.problems = append(o.problems, problem{v1alpha1.ReasonForbidden, "x"})
	require.True(t, o.failed())
	require.Negative(t, compareProblems(o.problems[7], o.problems[0]), "what can be tried again comes first")
	require.Equal(t, "a, b, c, d, e, f, g, h, i, j and 2 more",
		some(strings.Split("a b c d e f g h i j k l", " ")))
}
