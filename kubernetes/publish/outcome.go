package publish

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/kubernetes/api/v1alpha1"
	"github.com/ententehq/entente/kubernetes/publish/plan"
)

// problem is why something is not published: a reason of a condition, and a sentence.
type problem struct{ reason, text string }

// problemOf returns the problem that an error of the API server is.
func problemOf(err error) problem {
	switch {
	case errors.Is(err, errForeign):
		return problem{v1alpha1.ReasonForeign, strings.TrimSuffix(err.Error(), ": "+errForeign.Error())}
	case meta.IsNoMatchError(err):
		return problem{v1alpha1.ReasonUnsupported, fmt.Sprintf("The API server does not serve the kind: %v.", err)}
	case apierrors.IsForbidden(err):
		return problem{v1alpha1.ReasonForbidden, fmt.Sprintf("The controller lacks a right: %v.", err)}
	default:
		return problem{v1alpha1.ReasonWriteFailed, fmt.Sprintf("Kubernetes refused or failed: %v.", err)}
	}
}

// compareProblems orders problems: refusals, which the user of a publication solves, come last.
func compareProblems(a, b problem) int {
	aRefused, bRefused := a.reason == v1alpha1.ReasonRefused, b.reason == v1alpha1.ReasonRefused
	if aRefused != bRefused {
		if aRefused {
			return 1
		}
		return -1
	}
	return cmp.Compare(a.text, b.text)
}

// outcome is what became of a plan.
type outcome struct {
	plan     plan.Plan
	problems []problem
	changed  bool // an object was written or removed
}

// failed reports whether something should be tried again: refusals last until the publication, or a bundle, changes.
func (o outcome) failed() bool {
	return slices.ContainsFunc(o.problems, func(p problem) bool { return p.reason != v1alpha1.ReasonRefused })
}

const (
	mostProblems  = 5   // in the message of a condition
	mostBytes     = 600 // of a problem there
	mostInStatus  = 500 // bundles
	mostInMessage = 10  // names of trust domains
)

// text returns the problems for a person, bounded: a publication for a thousand namespaces can fail in each.
func (o outcome) text() string {
	var parts []string
	for i, p := range o.problems {
		if i == mostProblems {
			parts = append(parts, fmt.Sprintf("There are %d more.", len(o.problems)-i))
			break
		}
		text := p.text
		if len(text) > mostBytes {
			text = strings.ToValidUTF8(text[:mostBytes], "") + "…"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, " ")
}

// status changes the status of a publication to what became of its plan.
func (o outcome) status(s *v1alpha1.PublicationStatus, generation int64, broken error, now time.Time) {
	s.ObservedGeneration = generation
	at := metav1.NewTime(now.UTC().Truncate(time.Second)) // as it is read back
	if o.changed {
		s.LastChangeTime = &at
	}
	published := metav1.Condition{
		Type: v1alpha1.ConditionPublished, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonPublished,
		Message: "Every object holds the present bundles.", ObservedGeneration: generation, LastTransitionTime: at,
	}
	if len(o.plan.Absent) > 0 {
		published.Message += " Entente shows the controller no bundle of " + some(o.plan.Absent) + "."
	}
	if len(o.problems) > 0 {
		published.Status, published.Reason, published.Message = metav1.ConditionFalse, o.problems[0].reason, o.text()
		if s.LastError != published.Message || meta.IsStatusConditionTrue(s.Conditions, v1alpha1.ConditionPublished) {
			s.LastError, s.LastErrorTime = published.Message, &at
		}
	}
	current := metav1.Condition{
		Type: v1alpha1.ConditionCurrent, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonConnected,
		Message:            "Changes of bundles are received from Entente.",
		ObservedGeneration: generation, LastTransitionTime: at,
	}
	if broken != nil {
		current.Status, current.Reason = metav1.ConditionFalse, v1alpha1.ReasonDisconnected
		current.Message = fmt.Sprintf("The bundles are those before the connection to Entente broke: %v.", broken)
	}
	meta.SetStatusCondition(&s.Conditions, published)
	meta.SetStatusCondition(&s.Conditions, current)
	if !o.failed() {
		s.ObjectCount, s.BundleCount = int32(len(o.plan.Objects)), int32(len(o.plan.Bundles)) //nolint:gosec // bounded
		s.Bundles = listed(s.Bundles, o.plan.Bundles, at)
	}
}

// listed returns the list of bundles for a status. A bundle whose keys are the same keeps its age.
func listed(before []v1alpha1.PublishedBundle, bundles []*bundle.Bundle, now metav1.Time) []v1alpha1.PublishedBundle {
	var list []v1alpha1.PublishedBundle
	for _, b := range bundles[:min(len(bundles), mostInStatus)] {
		next := v1alpha1.PublishedBundle{
			TrustDomain: b.TrustDomain().Name(), Digest: fmt.Sprintf("%x", b.Digest()), Since: now,
		}
		if sequence, ok := b.Sequence(); ok {
			next.Sequence = fmt.Sprint(sequence)
		}
		if i := slices.IndexFunc(before, func(p v1alpha1.PublishedBundle) bool {
			return p.TrustDomain == next.TrustDomain && p.Digest == next.Digest
		}); i >= 0 {
			next.Since = before[i].Since
		}
		list = append(list, next)
	}
	return list
}

// some returns names for a sentence, the first ones of many.
func some(names []string) string {
	if more := len(names) - mostInMessage; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:mostInMessage], ", "), more)
	}
	return strings.Join(names, ", ")
}
