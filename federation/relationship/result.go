package relationship

import (
	"errors"
	"strings"
	"unicode"

	"github.com/ententehq/entente/access/audit"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/raftstore"
)

var (
	// ErrNoTrust says that there is nothing to verify the endpoint's X509-SVID with.
	ErrNoTrust = errors.New("the bundle of the endpoint's trust domain is not known, or its relationship is suspended")
	// ErrSuperseded says that what a fetch relied on changed before its result could be stored: it has to be made
	// again.
	ErrSuperseded = errors.New("the relationship or its bundle was changed while the fetch was under way")
	// ErrEnded says that the relationship was deleted or suspended.
	ErrEnded = errors.New("the relationship was ended or suspended while the fetch was under way")
)

// The results of a fetch that are this room's own. All others are the reasons of package bundle.
const (
	ResultStored      = "stored"
	ResultUnchanged   = "unchanged"
	ResultNotModified = "not_modified"
	// ResultConfirmed is the result where a peer's heartbeat named the stored bundle as current.
	ResultConfirmed = "confirmed"
	// ReasonNotWanted is the result of a bundle from a peer that the domain's relationship does not name.
	ReasonNotWanted = "not_wanted"
)

// ReasonOf names what came of an attempt, for metrics, logs and operators. There are some forty names.
func ReasonOf(err error) string {
	switch {
	case errors.Is(err, ErrRollback):
		return "rollback"
	case errors.Is(err, ErrEquivocation):
		return "equivocation"
	case errors.Is(err, ErrOtherTrustDomain), errors.Is(err, ErrForeignAuthority):
		return "other_trust_domain"
	case errors.Is(err, ErrNoTrust):
		return "no_trust"
	case errors.Is(err, ErrSuperseded):
		return "superseded"
	case errors.Is(err, ErrEnded):
		return "ended"
	case errors.Is(err, ErrUnfinished):
		return "unfinished"
	case errors.Is(err, audit.ErrUnaudited):
		return "not_audited"
	case errors.Is(err, raftstore.ErrTooLarge):
		return bundle.Reason(bundle.ErrTooLarge) // no other attempt stores it
	case isStoreError(err):
		return "not_stored"
	}
	return bundle.Reason(err)
}

func isStoreError(err error) bool {
	for _, known := range []error{raftstore.ErrNoLeader, raftstore.ErrUnknownOutcome, raftstore.ErrBusy, raftstore.ErrClosed} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

// IsDecision reports whether a failed attempt was a refusal of what the peer sent, which is audited, rather than an
// outage, a fault of this cluster, or a change of mind.
func IsDecision(result string) bool {
	switch result {
	case "network",
		"timeout",
		"canceled",
		"other",
		"superseded",
		"ended",
		"unfinished",
		"not_stored",
		"not_audited",
		"no_trust":
		return false
	}
	return true
}

// maxErrorBytes bounds the text of an error in reports and displays. The log has all of it.
const maxErrorBytes = 400

// Clip bounds an error's text. What a peer may have put into it, such as the names in a certificate that nobody signed,
// cannot break a line or an encoding, drive a terminal, or turn the direction of writing.
func Clip(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	if len(text) <= maxErrorBytes {
		return text
	}
	return strings.ToValidUTF8(text[:maxErrorBytes], "") + "…"
}

// ErrUnfinished says that a peer did not answer within the time that a fetch had in its lane. It says nothing against
// the peer yet.
var ErrUnfinished = errors.New("the peer did not answer promptly: it is asked again, and given more time")

// ErrNotWanted refuses a bundle from a peer that the domain's relationship does not name.
var ErrNotWanted = errors.New("no active relationship with the domain names this peer")
