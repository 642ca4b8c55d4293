package relationship

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/bundle/svid"
)

func TestWithRemedy(t *testing.T) {
	id := spiffeid.RequireFromString("spiffe://us.example.org/spire/server")
	presents := func(id spiffeid.ID) error {
		return &endpoint.OtherProfileError{Profile: endpoint.HTTPSSPIFFE, ID: id}
	}
	const (
		spiffe = "this looks like an https_spiffe endpoint: if its operator confirms the SPIFFE ID, change " +
			"--profile: `entente federation update us.example.org --profile https_spiffe --endpoint-spiffe-id "
		web = "this looks like an https_web endpoint: if its operator confirms that, change --profile: `entente " +
			"federation update us.example.org --profile https_web --endpoint-spiffe-id ''"
		check = "check host and port, and name the bundle endpoint with `entente federation update us.example.org " +
			"--url URL`"
		renew = "its operator renews the certificate; if it is valid there, correct the clock of this member"
	)
	long := spiffeid.RequireFromString("spiffe://us.example.org/" + strings.Repeat("x", 200))
	for _, test := range []struct {
		name   string
		row    *statev1.Relationship
		stored bool
		err    error
		want   string
	}{
		{"https_spiffe, no bundle yet", &statev1.Relationship{}, false, presents(id),
			spiffe + "spiffe://us.example.org/spire/server --bootstrap FILE`"},
		{"https_spiffe", &statev1.Relationship{WebRoots: []byte("x")}, true, presents(id),
			spiffe + "spiffe://us.example.org/spire/server --web-roots ''`"},
		{"https_spiffe in another domain", &statev1.Relationship{}, true,
			presents(spiffeid.RequireFromString("spiffe://hub.example.org/endpoint")),
			spiffe + "spiffe://hub.example.org/endpoint --serving-bundle FILE`"},
		{"https_spiffe with a long ID", &statev1.Relationship{}, true, presents(long), spiffe + "ID`"},
		{"https_web", &statev1.Relationship{}, true, &endpoint.OtherProfileError{Profile: endpoint.HTTPSWeb},
			web + "`"},
		{"https_web of a private CA", &statev1.Relationship{ServingBundle: []byte("x")}, true,
			&endpoint.OtherProfileError{Profile: endpoint.HTTPSWeb, PrivateRoots: true},
			web + " --serving-bundle '' --web-roots FILE`"},
		{"another ID", &statev1.Relationship{}, true, &endpoint.UnexpectedIDError{Presented: id, Expected: id},
			"if its operator confirms that SPIFFE ID: `entente federation update us.example.org --endpoint-spiffe-id " +
				"spiffe://us.example.org/spire/server`"},
		{"another host", &statev1.Relationship{}, true, endpoint.ErrHostName,
			"name a host of the certificate with `entente federation update us.example.org --url URL`, or have its " +
				"operator get a certificate for this host"},
		{"a private CA", &statev1.Relationship{}, true,
			fmt.Errorf("%w: %w", endpoint.ErrWebCertificate, x509.UnknownAuthorityError{}),
			"get the roots of its private CA from its operator: `entente federation update us.example.org " +
				"--web-roots FILE`"},
		{"an expired certificate", &statev1.Relationship{}, true,
			fmt.Errorf("%w: %w", endpoint.ErrWebCertificate, x509.CertificateInvalidError{Reason: x509.Expired}),
			renew},
		{"an expired SVID", &statev1.Relationship{}, true, svid.ErrExpired, renew},
		{"no TLS", &statev1.Relationship{}, true, endpoint.ErrTLS, check},
		{"neither SVID nor web certificate", &statev1.Relationship{}, true, svid.ErrInvalid, check},
		{"another authority", &statev1.Relationship{}, true, svid.ErrUntrusted,
			"if the authorities of its domain were replaced during an outage, get the bundle from its operator: " +
				"`entente federation update us.example.org --bootstrap FILE`"},
		{"an outage", &statev1.Relationship{}, true, endpoint.ErrNetwork, ""},
		{"a rollback", &statev1.Relationship{}, true, ErrRollback, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.row.TrustDomain = "us.example.org"
			// A URL can be so long that the text of an error is cut off. The remedy is not.
			for _, prefix := range []string{"fetch", strings.Repeat("x", endpoint.MaxURLBytes)} {
				err := WithRemedy(fmt.Errorf("%s: %w", prefix, test.err), test.row, test.stored)
				require.ErrorIs(t, err, test.err)
				text, found := strings.CutPrefix(Clip(err.Error()), clip(prefix+": "+test.err.Error(), maxCauseBytes))
				if test.want == "" {
					require.False(t, errors.As(err, new(*remediedError)))
					continue
				}
				require.True(t, found, err.Error())
				require.Equal(t, "; "+test.want, text)
			}
		})
	}
}
