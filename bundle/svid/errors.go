package svid

import "github.com/ententehq/entente/bundle/internal/refusal"

// Refusals of X509-SVIDs.
var (
	ErrMissing   error = refusal.New("no_svid", "there is no certificate; an X509-SVID is required")
	ErrInvalid   error = refusal.New("not_an_svid", "the certificate is not a valid X509-SVID")
	ErrNoBundle  error = refusal.New("no_bundle", "there is no bundle to verify the X509-SVID with")
	ErrUntrusted error = refusal.New(
		"untrusted_svid",
		"the X509-SVID does not lead to an authority of its trust domain",
	)
	ErrExpired     error = refusal.New("svid_expired", "the X509-SVID has expired")
	ErrNotYetValid error = refusal.New("svid_not_yet_valid", "the X509-SVID is not valid yet")
)
