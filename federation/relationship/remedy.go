package relationship

import (
	"crypto/x509"
	"errors"
	"fmt"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/bundle/svid"
)

// maxRemedyID bounds a SPIFFE ID in a command. A longer one is left to the operator.
const maxRemedyID = 200

// remediedError is the error of a failed fetch with what an operator can do about it. However long the cause is, the
// command is not cut off.
type remediedError struct {
	cause  error
	remedy string
}

func (e *remediedError) Error() string { return clip(e.cause.Error(), maxCauseBytes) + "; " + e.remedy }

func (e *remediedError) Unwrap() error { return e.cause }

// WithRemedy adds to the error of a fetch what an operator can do about it, as a command where there is one. stored
// means that there is a bundle of the domain.
//
// What an endpoint presented is not verified, or is not what was agreed. So a command that would rely on it is always
// one to compare with the operator of the peer first.
func WithRemedy(err error, row *statev1.Relationship, stored bool) error {
	if remedy := remedyOf(err, row, stored); remedy != "" {
		return &remediedError{err, remedy}
	}
	return err
}

func remedyOf(err error, row *statev1.Relationship, stored bool) string {
	update := "entente federation update " + row.GetTrustDomain()
	var other *endpoint.OtherProfileError
	var unexpected *endpoint.UnexpectedIDError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &other) && other.Profile == endpoint.HTTPSSPIFFE:
		command := update + " --profile https_spiffe --endpoint-spiffe-id " + idFor(other.ID.String())
		if len(row.GetWebRoots()) > 0 {
			command += " --web-roots ''"
		}
		switch {
		case other.ID.TrustDomain().Name() != row.GetTrustDomain():
			command += " --serving-bundle FILE"
		case !stored:
			command += " --bootstrap FILE"
		}
		return fmt.Sprintf("this looks like an https_spiffe endpoint: if its operator confirms the SPIFFE ID, change "+
			"--profile: `%s`", command)
	case errors.As(err, &other):
		command := update + " --profile https_web --endpoint-spiffe-id ''"
		if len(row.GetServingBundle()) > 0 {
			command += " --serving-bundle ''"
		}
		if other.PrivateRoots {
			command += " --web-roots FILE"
		}
		return fmt.Sprintf("this looks like an https_web endpoint: if its operator confirms that, change --profile: "+
			"`%s`", command)
	case errors.As(err, &unexpected):
		return fmt.Sprintf("if its operator confirms that SPIFFE ID: `%s --endpoint-spiffe-id %s`", update,
			idFor(unexpected.Presented.String()))
	case errors.Is(err, endpoint.ErrHostName):
		return fmt.Sprintf("name a host of the certificate with `%s --url URL`, or have its operator get a "+
			"certificate for this host", update)
	case errors.Is(err, endpoint.ErrWebCertificate) && errors.As(err, &unknown):
		return fmt.Sprintf("get the roots of its private CA from its operator: `%s --web-roots FILE`", update)
	case errors.Is(err, endpoint.ErrWebCertificate), errors.Is(err, svid.ErrExpired):
		return "its operator renews the certificate; if it is valid there, correct the clock of this member"
	case errors.Is(err, endpoint.ErrTLS), errors.Is(err, svid.ErrInvalid):
		return fmt.Sprintf("check host and port, and name the bundle endpoint with `%s --url URL`", update)
	case errors.Is(err, svid.ErrUntrusted):
		return fmt.Sprintf("if the authorities of its domain were replaced during an outage, get the bundle from its "+
			"operator: `%s --bootstrap FILE`", update)
	}
	return ""
}

// idFor returns a SPIFFE ID for a command, none of whose characters a shell reads otherwise.
func idFor(id string) string {
	if len(id) > maxRemedyID {
		return "ID"
	}
	return id
}
