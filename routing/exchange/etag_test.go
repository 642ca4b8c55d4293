package exchange

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/routing/routingtest"
)

func TestEtags(t *testing.T) {
	m, ctx := newExporter(t), routingtest.Admin(t)
	const us = "us.example.org"
	share := func(region, etag string) (string, error) {
		made, err := m.ExportService(ctx, &ententev1.ExportServiceRequest{
			Export: &ententev1.ServiceExport{Service: "shop", To: us, Localities: []string{region}}, Etag: etag,
		})
		return made.GetEtag(), err
	}
	unshare := func(etag string) error {
		_, err := m.UnexportService(ctx, &ententev1.UnexportServiceRequest{Name: "shop", To: us, Etag: etag})
		return err
	}
	bring := func(name, etag string) (string, error) {
		made, err := m.ImportService(ctx, &ententev1.ImportServiceRequest{
			Import: &ententev1.ServiceImport{Service: "cart", Name: name, From: us}, Etag: etag,
		})
		return made.GetEtag(), err
	}
	end := func(etag string) error {
		_, err := m.UnimportService(ctx, &ententev1.UnimportServiceRequest{Service: "cart", From: us, Etag: etag})
		return err
	}
	for name, c := range map[string]struct {
		put    func(value, etag string) (string, error)
		remove func(etag string) error
	}{
		"the export of shop to us.example.org":   {share, unshare},
		"the import of cart from us.example.org": {bring, end},
	} {
		t.Run(name, func(t *testing.T) {
			first, err := c.put("one", "0")
			require.NoError(t, err)
			_, err = c.put("two", "0")
			routingtest.Refused(t, err, codes.Aborted, name+" exists, in generation "+first)
			revision := m.store.View().Revision()
			same, err := c.put("one", first)
			require.NoError(t, err)
			require.Equal(t, first, same)
			require.Equal(t, revision, m.store.View().Revision(), "equal values were written")
			second, err := c.put("two", first)
			require.NoError(t, err)
			require.NotEqual(t, first, second)
			_, err = c.put("three", first)
			routingtest.Refused(t, err, codes.Aborted, name+" was changed since it was read")
			routingtest.Refused(t, c.remove(first), codes.Aborted, name+" was changed since it was read")
			require.NoError(t, c.remove(second))
			_, err = c.put("two", second)
			routingtest.Refused(t, err, codes.Aborted, name+" was read in generation "+second+" and has been deleted")
		})
	}
}
