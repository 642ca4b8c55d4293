package port

import (
	"crypto/x509"
	"errors"

	"github.com/ententehq/entente/bundle/svid"
)

// svidReasons names, by the refusals of [bundle.VerifySVID], why a caller under h2 was refused or is closed.
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

// verifySVID verifies what a caller under h2 presents against the bundles of now. Every error is a [Refusal].
func (p *Port) verifySVID(chain []*x509.Certificate) (svid.Verified, error) {
	verified, err := svid.Verify(chain, p.trust, p.now())
	if err == nil {
		return verified, nil
	}
	for _, r := range svidReasons {
		if errors.Is(err, r.refusal) {
			return svid.Verified{}, refuse(r.reason, err.Error())
		}
	}
	return svid.Verified{}, refuse(ReasonUnverifiedSVID, err.Error())
}
