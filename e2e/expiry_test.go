package e2e

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// newestExpiry is when the last certificate of a bundle document expires.
func newestExpiry(t *testing.T, document string) time.Time {
	t.Helper()
	var parsed struct {
		Keys []struct {
			X5C []string `json:"x5c"`
		} `json:"keys"`
	}
	require.NoError(t, json.Unmarshal([]byte(document), &parsed))
	var last time.Time
	for _, key := range parsed.Keys {
		for _, text := range key.X5C {
			der, err := base64.StdEncoding.DecodeString(text)
			require.NoError(t, err)
			cert, err := x509.ParseCertificate(der)
			require.NoError(t, err)
			if cert.NotAfter.After(last) {
				last = cert.NotAfter
			}
		}
	}
	require.False(t, last.IsZero(), "the bundle has no X.509 authority: %s", document)
	return last
}

func TestAClusterWhoseEveryCertificateHasExpiredStartsAgain(t *testing.T) {
	t.Parallel() // it waits for the certificates to expire, most of the time
	c := newCluster(t, "eu", 3, `
federation {
  min_refresh      = "1s"
  peer_min_refresh = "1s"
}
bundle_endpoint {
  listen       = "BUNDLES"
  refresh_hint = "1s"
}
authority {
  ca_ttl        = "16s"
  x509_svid_ttl = "5s"
  jwt_svid_ttl  = "5s"
  signing_grace = "5s"
}
upstream "selfsigned" { root_ttl = "64s" }
`)
	document, err := c.members[0].document("/")
	require.NoError(t, err)
	for _, p := range c.members {
		p.kill()
	}
	<-timerUntil(t, newestExpiry(t, document))

	for _, p := range c.members {
		p.run()
	}
	for _, p := range c.members {
		p.waitReady() // it leads or follows, has an SVID, and serves a bundle
	}
	again, err := c.members[0].document("/")
	require.NoError(t, err)
	require.True(t, newestExpiry(t, again).After(time.Now()), "the bundle holds nothing valid")
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	require.NoError(t, register(ctx, c.members[2], c.domain, "web", 1))
}
