package port

import (
	"crypto/x509"
	"errors"

	"github.com/ententehq/entente/bundle"
)

// svidReasons names, by the refusals of [bundle.VerifySVID], why a caller under h2 was refused or is closed.
var svidReasons = []struct {
	refusal error
	reason  Reason
}{
	{bundle.ErrNoSVID, ReasonNoCertificate},
	{bundle.ErrNotSVID, ReasonMalformedSVID},
	{bundle.ErrNoBundle, ReasonUntrustedDomain},
	{bundle.ErrSVIDExpired, ReasonExpiredSVID},
	{bundle.ErrSVIDNotYetValid, ReasonEarlySVID},
	{bundle.ErrUntrustedSVID, ReasonUnverifiedSVID},
}

// verifySVID verifies what a caller under h2 presents against the bundles of now. Every error is a [Refusal].
func (p *Port) verifySVID(chain []*x509.Certificate) (bundle.SVID, error) {
	svid, err := bundle.VerifySVID(chain, p.trust, p.now())
	if err == nil {
		return svid, nil
	}
	for _, r := range svidReasons {
		if errors.Is(err, r.refusal) {
			return bundle.SVID{}, refuse(r.reason, err.Error())
		}
	}
	return bundle.SVID{}, refuse(ReasonUnverifiedSVID, err.Error())
}
