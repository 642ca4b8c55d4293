package publish_test

import (
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/internal/bundletest"
	"github.com/ententehq/entente/bundle/publish"
)

func names(objects []publish.Object) (all []string) {
	for _, o := range objects {
		all = append(all, o.Name)
	}
	return all
}

func TestObjects(t *testing.T) {
	eu := bundletest.NewBundle(t, bundletest.Home, 1, bundletest.NewAuthority(t, bundletest.Home))
	empty, err := bundle.New(bundletest.Foreign, bundle.Content{})
	require.NoError(t, err)
	objects, err := publish.Objects([]*bundle.Bundle{eu, empty}, bundle.Formats)
	require.NoError(t, err)
	require.Equal(t, []string{
		"bundle-map.json", "eu.example.org.pem", "eu.example.org.spiffe.json", "us.example.org.spiffe.json",
	}, names(objects), "without JWT keys and certificates there is nothing to write")
	require.Equal(t, "application/x-pem-file", objects[1].ContentType)
	require.Equal(t, string(eu.PEM()), string(objects[1].Body))

	// No file system has so long a name: the domain is left out, and the others are not.
	long := spiffeid.RequireTrustDomainFromString(strings.Repeat("a", 255))
	far := bundletest.NewBundle(t, long, 1, bundletest.NewAuthority(t, long))
	objects, err = publish.Objects([]*bundle.Bundle{eu, far}, []bundle.Format{bundle.FormatPEM})
	require.EqualError(t, err, "the name of "+strings.Repeat("a", 32)+
		"… has 259 bytes, at most 255 are allowed: use the bundle map")
	require.Equal(t, []string{"eu.example.org.pem"}, names(objects))
}
