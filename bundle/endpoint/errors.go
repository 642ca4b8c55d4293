package endpoint

import "github.com/ententehq/entente/bundle/internal/refusal"

// Refusals of endpoints and of their answers.
var (
	ErrURL      error = refusal.New("bad_url", "the URL is not a valid bundle endpoint URL")
	ErrEndpoint error = refusal.New("bad_endpoint", "the endpoint is not fully described")
	ErrStatus   error = refusal.New("bad_status", "the answer is not 200 OK")
	ErrNotAsked error = refusal.New(
		"unasked_304",
		"the endpoint answered 304 to a request that named no ETag",
	)
	ErrRedirect error = refusal.New(
		"bad_redirect",
		"the endpoint redirects to where a bundle may not come from",
	)
	ErrTooManyRedirects error = refusal.New("too_many_redirects", "the endpoint redirects too often")
	ErrEncoded          error = refusal.New("encoded", "the answer is compressed, which was not requested")
	ErrTimeout          error = refusal.New("timeout", "the endpoint took too long")
	ErrNetwork          error = refusal.New("network", "the endpoint cannot be reached")
	ErrTLS              error = refusal.New("tls", "no secure connection to the endpoint")
	ErrHostName         error = refusal.New("host_name", "the endpoint's certificate is for another host name")
	ErrWebCertificate   error = refusal.New(
		"web_certificate",
		"the endpoint's certificate is not valid under the accepted roots",
	)
	ErrNoStatements         error = refusal.New("no_statements", "the endpoint makes no statements")
	ErrUnexpectedEndpointID error = refusal.New(
		"unexpected_endpoint_id",
		"the endpoint has another SPIFFE ID than expected",
	)
	ErrOtherProfile error = refusal.New(
		"other_profile",
		"the endpoint authenticates by another profile than configured",
	)
)
