package port

import (
	"crypto/x509"
	"errors"

	"github.com/ententehq/entente/bundle/svid"
)

// svidReasons maps the errors of [svid.Verify] to reasons.
var svidReasons = []struct {
	refusal error
	reason  Reason
}{
	{svid.ErrMissing, ReasonNoCertificate},
	{svid.ErrInvalid, ReasonMalformedSVID},
	{svid.ErrNoBundle, ReasonUntrustedDomain},
	{svid.ErrExpired, ReasonExpiredSVID},
	{svid.ErrNotYetValid, ReasonEarlySVID},
	{svid.ErrUntrusted, ReasonUnverifiedSVID},
}

// verifySVID verifies the chain of a caller under h2 against the current bundles. Every error is a [Refusal].
func (p *Port) verifySVID(chain []*x509.Certificate) (svid.Verified, error) {
	verified, err := svid.Verify(chain, p.trust, p.now())
	if err == nil {
		return verified, nil
	}
	for _, r := range svidReasons {
		if errors.Is(err, r.refusal) {
			return svid.Verified{}, refuse(r.reason, "%v", err)
		}
	}
	return svid.Verified{}, refuse(ReasonUnverifiedSVID, "%v", err)
}
