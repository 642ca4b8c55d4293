package bundle

import (
	"context"
	"errors"

	"github.com/ententehq/entente/bundle/internal/jwk"
	"github.com/ententehq/entente/bundle/internal/refusal"
	"github.com/ententehq/entente/bundle/internal/strictjson"
)

// Refusals of documents and maps. Each is the sentinel at the end of a longer error.
var (
	ErrMalformed      = strictjson.ErrMalformed
	ErrDuplicateName  = strictjson.ErrDuplicateName
	ErrTooManyMembers = strictjson.ErrTooManyMembers
	ErrTooComplex     = jwk.ErrTooComplex
	ErrKey            = jwk.ErrKey

	ErrTooLarge             error = refusal.New("too_large", "the document is larger than allowed")
	ErrNoKeys               error = refusal.New("no_keys", "the document has no list of keys")
	ErrTooManyKeys          error = refusal.New("too_many_keys", "the document has more keys than allowed")
	ErrSequence             error = refusal.New("bad_sequence", "the sequence is not a whole number of at most 64 bits")
	ErrRefreshHint          error = refusal.New("bad_refresh_hint", "the refresh hint is not a whole number of seconds")
	ErrDuplicateKeyID       error = refusal.New("duplicate_kid", "two different keys of one use have the same kid")
	ErrNoTrustDomains       error = refusal.New("no_trust_domains", "the bundle map has no trust_domains")
	ErrDuplicateTrustDomain error = refusal.New("duplicate_trust_domain", "a trust domain occurs twice")
	ErrTrustDomain          error = refusal.New("bad_trust_domain", "the name is not a valid trust domain")
	ErrID                   error = refusal.New("bad_spiffe_id", "the string is not a valid SPIFFE ID")
)

// Reason returns the name of err for a metric label: "ok" for nil, the name of the refusal if err holds one, "canceled"
// if the caller gave up, and "other" for all else. There are some thirty names, whatever an endpoint sends.
func Reason(err error) string {
	var r *refusal.Error
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &r):
		return r.Reason()
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	}
	return "other"
}
