package bundle

import (
	"context"
	"errors"
)

// refusal is a sentinel error with a name that is short and bounded enough to be a metric label.
type refusal struct{ reason, text string }

func (r *refusal) Error() string { return r.text }

// Refusals of documents and maps. Each is the sentinel at the end of a longer error.
var (
	ErrTooLarge             error = &refusal{"too_large", "the document is larger than allowed"}
	ErrMalformed            error = &refusal{"malformed", "the document is malformed"}
	ErrDuplicateName        error = &refusal{"duplicate_name", "a JSON object has two members of the same name"}
	ErrTooManyMembers       error = &refusal{"too_many_members", "a JSON object has more members than allowed"}
	ErrTooComplex           error = &refusal{"too_complex", "the certificates of the document have more parts than allowed"}
	ErrNoKeys               error = &refusal{"no_keys", "the document has no list of keys"}
	ErrTooManyKeys          error = &refusal{"too_many_keys", "the document has more keys than allowed"}
	ErrSequence             error = &refusal{"bad_sequence", "the sequence is not a whole number of at most 64 bits"}
	ErrRefreshHint          error = &refusal{"bad_refresh_hint", "the refresh hint is not a whole number of seconds"}
	ErrKey                  error = &refusal{"bad_key", "the key is malformed"}
	ErrDuplicateKeyID       error = &refusal{"duplicate_kid", "two different JWT keys have the same kid"}
	ErrNoTrustDomains       error = &refusal{"no_trust_domains", "the bundle map has no trust_domains"}
	ErrDuplicateTrustDomain error = &refusal{"duplicate_trust_domain", "a trust domain occurs twice"}
	ErrTrustDomain          error = &refusal{"bad_trust_domain", "the name is not a valid trust domain"}
	ErrID                   error = &refusal{"bad_spiffe_id", "the string is not a valid SPIFFE ID"}
)

// Refusals of statements.
var (
	ErrStatement          error = &refusal{"bad_statement", "it is not a statement on a bundle"}
	ErrStatementSigner    error = &refusal{"statement_signer", "the statement is signed by a key that may not sign it"}
	ErrStatementSignature error = &refusal{"statement_signature", "the statement's signature does not verify"}
	ErrStatementLink      error = &refusal{"statement_link", "the statement does not continue the one before"}
	ErrNoStatements       error = &refusal{"no_statements", "the endpoint makes no statements"}
)

// Refusals of endpoints and of what they answer.
var (
	ErrURL              error = &refusal{"bad_url", "the URL is not a valid bundle endpoint URL"}
	ErrEndpoint         error = &refusal{"bad_endpoint", "the endpoint is not fully described"}
	ErrStatus           error = &refusal{"bad_status", "the answer is not 200 OK"}
	ErrNotAsked         error = &refusal{"unasked_304", "the endpoint answered 304 to a request that named no ETag"}
	ErrRedirect         error = &refusal{"bad_redirect", "the endpoint redirects to where a bundle may not come from"}
	ErrTooManyRedirects error = &refusal{"too_many_redirects", "the endpoint redirects too often"}
	ErrEncoded          error = &refusal{"encoded", "the answer is compressed, which was not asked for"}
	ErrTimeout          error = &refusal{"timeout", "the endpoint took too long"}
	ErrNetwork          error = &refusal{"network", "the endpoint cannot be reached"}
	ErrTLS              error = &refusal{"tls", "no secure connection to the endpoint"}
	ErrHostName         error = &refusal{"host_name", "the endpoint's certificate is for another host name"}
	ErrWebCertificate   error = &refusal{"web_certificate", "the endpoint's certificate is not valid under the accepted roots"}
)

// Refusals of X509-SVIDs.
var (
	ErrNoSVID               error = &refusal{"no_svid", "there is no certificate; an X509-SVID is asked for"}
	ErrNotSVID              error = &refusal{"not_an_svid", "the certificate is not a valid X509-SVID"}
	ErrNoBundle             error = &refusal{"no_bundle", "there is no bundle to verify the X509-SVID with"}
	ErrUntrustedSVID        error = &refusal{"untrusted_svid", "the X509-SVID does not lead to an authority of its trust domain"}
	ErrSVIDExpired          error = &refusal{"svid_expired", "the X509-SVID has expired"}
	ErrSVIDNotYetValid      error = &refusal{"svid_not_yet_valid", "the X509-SVID is not valid yet"}
	ErrUnexpectedEndpointID error = &refusal{"unexpected_endpoint_id", "the endpoint has another SPIFFE ID than expected"}
)

// Reason names why err came about, for a metric label: "ok" for nil, the name of the refusal if err holds one,
// "canceled" if the caller gave up, and "other" for what this package did not say. There are some thirty reasons
// and never more for whatever an endpoint sends.
func Reason(err error) string {
	var r *refusal
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &r):
		return r.reason
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	}
	return "other"
}
