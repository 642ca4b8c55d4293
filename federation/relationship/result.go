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
	// ErrNoTrust means that no bundle verifies the endpoint's X509-SVID.
	ErrNoTrust = errors.New("the bundle of the endpoint's trust domain is not known, or its relationship is suspended")
	// ErrSuperseded means that the basis of a fetch changed before its result was stored. The fetch is repeated.
	ErrSuperseded = errors.New("the relationship or its bundle was changed while the fetch was under way")
	// ErrEnded means that the relationship was deleted or suspended.
	ErrEnded = errors.New("the relationship was ended or suspended while the fetch was under way")
)

// The results of a fetch, besides the reasons of package bundle.
const (
	ResultStored      = "stored"
	ResultUnchanged   = "unchanged"
	ResultNotModified = "not_modified"
	// ResultConfirmed is the result where a peer's heartbeat named the stored bundle as current.
	ResultConfirmed = "confirmed"
	// ReasonNotWanted is the result of a bundle from a peer that the domain's relationship does not name.
	ReasonNotWanted = "not_wanted"
)

// ReasonOf names the result of an attempt, for metrics, logs and operators. There are some forty names.
func ReasonOf(err error) string {
	switch {
	case errors.Is(err, ErrRollback):
		return "rollback"
	case errors.Is(err, ErrEquivocation):
		return "equivocation"
	case errors.Is(err, ErrOtherTrustDomain), errors.Is(err, ErrForeignAuthority):
		return "other_trust_domain"
	case errors.Is(err, ErrNoUsableKey):
		return "no_usable_key"
	case errors.Is(err, ErrNoTrust):
		return "no_trust"
	case errors.Is(err, ErrFile):
		return "file"
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
	for _, known := range []error{
		raftstore.ErrNoLeader, raftstore.ErrUnknownOutcome, raftstore.ErrBusy, raftstore.ErrClosed,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

// IsDecision reports whether a failed attempt was a refusal of what the peer sent, which is audited, and not an outage,
// a local fault, or a change of the relationship.
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
		"file",
		"no_trust":
		return false
	}
	return true
}

// IsOutage reports whether an attempt failed because the endpoint could not be reached, had no valid certificate or did
// not serve, so that an earlier attempt than at the next turn may succeed. What an operator has to change, and a
// document that was refused, is refused again.
func IsOutage(result string) bool {
	switch result {
	case "network", "timeout", "tls", "bad_status", "other", "file", "web_certificate", "svid_expired",
		"svid_not_yet_valid":
		return true
	}
	return false
}

const (
	// maxErrorBytes bounds the text of an error in reports and displays, its remedy included. The log has all of it.
	maxErrorBytes = 1000
	// maxCauseBytes bounds the part of it before the remedy.
	maxCauseBytes = 400
)

// Clip bounds the text of an error. Untrusted content, such as names in a certificate, cannot break a line or an
// encoding, control a terminal, or change the direction of text.
func Clip(text string) string { return clip(text, maxErrorBytes) }

func clip(text string, most int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// ErrUnfinished means that a peer did not answer within the time of the fast queue. It is fetched again with more time.
var ErrUnfinished = errors.New("the peer did not answer promptly: it is fetched again with more time")

// ErrNotWanted refuses a bundle from a peer that the domain's relationship does not name.
var ErrNotWanted = errors.New("no active relationship with the domain names this peer")
