package exchange

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/routing/registry"
	"github.com/ententehq/entente/routing/routingtest"
)

func TestParseExportAndImport(t *testing.T) {
	for name, c := range map[string]struct {
		export  *ententev1.ServiceExport
		imports *ententev1.ServiceImport
		refusal string
	}{
		"nothing": {refusal: "the export is missing"},
		"no domain": {export: export("shop", ""), refusal: "cannot be shared: the trust domain of the " +
			"other cluster is missing"},
		"a scheme":   {export: export("shop", "spiffe://us.example.org"), refusal: "write the name alone"},
		"no service": {export: export("", "us.example.org"), refusal: "not a service name: it is empty"},
		"a bad name there": {
			export:  &ententev1.ServiceExport{Service: "shop", To: "us.example.org", Name: "Shop"},
			refusal: `"Shop" has 'S' at byte 1`,
		},
		"a bad place": {export: &ententev1.ServiceExport{
			Service:    "shop",
			To:         "us.example.org",
			Localities: []string{"eu//a"},
		}, refusal: "the zone is empty"},
		"many places": {export: &ententev1.ServiceExport{
			Service:    "shop",
			To:         "us.example.org",
			Localities: make([]string, 33),
		}, refusal: "the export names 33 places; 32 are allowed"},
		"half a path": {export: &ententev1.ServiceExport{
			Service:    "shop",
			To:         "us.example.org",
			PathPrefix: "shop",
		}, refusal: `the path "shop" does not consist of whole segments`},
		"an open path": {export: &ententev1.ServiceExport{
			Service:    "shop",
			To:         "us.example.org",
			PathPrefix: "/shop/",
		}, refusal: `the path "/shop/" does not consist of whole segments`},
		"import, no name": {imports: &ententev1.ServiceImport{
			From: "us.example.org",
		}, refusal: "not a service name: it is empty"},
		"import, no from": {
			imports: &ententev1.ServiceImport{Name: "shop"},
			refusal: "the trust domain of the other cluster is missing",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var err error
			if c.imports != nil {
				_, err = parseImport(c.imports)
			} else {
				_, err = parseExport(c.export)
			}
			require.ErrorContains(t, err, c.refusal)
		})
	}
}

func TestExportCovers(t *testing.T) {
	parse := func(change func(*ententev1.Instance)) registry.Instance {
		m := routingtest.Registration()
		change(m)
		i, err := registry.ParseInstance(m)
		require.NoError(t, err)
		return i
	}
	plain := parse(func(*ententev1.Instance) {})
	imported := plain
	imported.Origin = "us.example.org"
	for name, c := range map[string]struct {
		change   func(*ententev1.ServiceExport)
		instance registry.Instance
		covered  bool
	}{
		"all":              {func(*ententev1.ServiceExport) {}, plain, true},
		"what is imported": {func(*ententev1.ServiceExport) {}, imported, false},
		"other service":    {func(e *ententev1.ServiceExport) { e.Service = "cart" }, plain, false},
		"its region": {func(e *ententev1.ServiceExport) {
			e.Localities = []string{
				"us",
				plain.Locality.Region,
			}
		}, plain, true},
		"its zone": {func(e *ententev1.ServiceExport) {
			e.Localities = []string{plain.Locality.Region + "/" + plain.Locality.Zone}
		}, plain, true},
		"another region": {func(e *ententev1.ServiceExport) { e.Localities = []string{"us"} }, plain, false},
		"its domain": {func(
			e *ententev1.ServiceExport,
		) {
			e.TrustDomain = plain.ID.TrustDomain().Name()
		}, plain, true},
		"another domain": {func(e *ententev1.ServiceExport) { e.TrustDomain = "pay.example.org" }, plain, false},
		"its path":       {func(e *ententev1.ServiceExport) { e.PathPrefix = plain.ID.Path() }, plain, true},
		"half a segment": {
			func(e *ententev1.ServiceExport) { e.PathPrefix = plain.ID.Path()[:len(plain.ID.Path())-1] },
			plain,
			false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := export("shop", "us.example.org")
			c.change(m)
			e, err := parseExport(m)
			require.NoError(t, err)
			require.Equal(t, c.covered, e.covers(c.instance))
		})
	}
}

func TestExports(t *testing.T) {
	m, ctx := newExporter(t), routingtest.Admin(t)
	_, err := m.ExportService(ctx, &ententev1.ExportServiceRequest{Export: export("shop", "ap.example.org")})
	routingtest.Refused(
		t,
		err,
		codes.FailedPrecondition,
		"this cluster has no relationship with ap.example.org; create one first",
	)
	_, err = m.ExportService(ctx, &ententev1.ExportServiceRequest{Export: export("shop", "eu.example.org")})
	routingtest.Refused(t, err, codes.FailedPrecondition, "this cluster hosts eu.example.org itself")
	_, err = m.ExportService(
		ctx,
		&ententev1.ExportServiceRequest{
			Export: &ententev1.ServiceExport{Service: "shop", To: "us.example.org", TrustDomain: "pay.example.org"},
		},
	)
	routingtest.Refused(t, err, codes.FailedPrecondition, "does not host pay.example.org")
	_, err = m.ExportService(ctx, &ententev1.ExportServiceRequest{})
	routingtest.Refused(t, err, codes.InvalidArgument, "the export is missing")

	made, err := m.ExportService(ctx, &ententev1.ExportServiceRequest{Export: export("shop", "us.example.org")})
	require.NoError(t, err)
	require.Equal(t, ententev1.ExportState_EXPORT_STATE_OFFERED, made.GetState())
	require.Equal(t, "it covers no instance of a hosted domain", made.GetDetail())
	_, err = m.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: routingtest.Registration()})
	require.NoError(t, err)
	again, err := m.ExportService(ctx, &ententev1.ExportServiceRequest{Export: export("shop", "us.example.org")})
	require.NoError(t, err)
	require.Equal(t, made.GetRevision(), again.GetRevision(), "an equal export was written")
	require.EqualValues(t, 1, again.GetInstances())

	shown := func() *ententev1.ServiceExport {
		list, err := m.ListServiceExports(ctx, &ententev1.ListServiceExportsRequest{})
		require.NoError(t, err)
		require.Len(t, list.GetExports(), 1)
		return list.GetExports()[0]
	}
	require.Equal(t, "shop", shown().GetName())
	m.agree(t, "us.example.org", "us.example.org", routingtest.Epoch, false)
	require.Equal(t, ententev1.ExportState_EXPORT_STATE_INACTIVE, shown().GetState())
	m.agree(t, "us.example.org", "", routingtest.Epoch, true)
	require.Contains(t, shown().GetDetail(), "names no peer")
	m.agree(t, "us.example.org", "us.example.org", routingtest.Epoch.Add(time.Hour), true)
	require.Equal(t, ententev1.ExportState_EXPORT_STATE_ENDED, shown().GetState(), "it counts under the next agreement")

	_, err = m.UnexportService(ctx, &ententev1.UnexportServiceRequest{Name: "shop", To: "us.example.org"})
	require.NoError(t, err)
	_, err = m.UnexportService(ctx, &ententev1.UnexportServiceRequest{Name: "shop", To: "us.example.org"})
	routingtest.Refused(t, err, codes.NotFound, "nothing is exported to us.example.org as shop")
}

func TestImports(t *testing.T) {
	m, ctx := newExporter(t), routingtest.Admin(t)
	wanted := func(name, from, as string) *ententev1.ImportServiceRequest {
		return &ententev1.ImportServiceRequest{Import: &ententev1.ServiceImport{Name: name, From: from, Service: as}}
	}
	_, err := m.ImportService(ctx, wanted("shop", "ap.example.org", ""))
	routingtest.Refused(t, err, codes.FailedPrecondition, "this cluster has no relationship with ap.example.org")
	made, err := m.ImportService(ctx, wanted("shop", "us.example.org", "store"))
	require.NoError(t, err)
	require.Equal(t, ententev1.ImportState_IMPORT_STATE_PENDING, made.GetState())
	require.Equal(t, "store", made.GetService())
	_, err = m.ImportService(ctx, wanted("shop", "us.example.org", "bazaar"))
	routingtest.Refused(t, err, codes.AlreadyExists, "shop of us.example.org is imported as store already")

	// Two equal imports at the same time are one.
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			again, err := m.ImportService(ctx, wanted("shop", "us.example.org", "store"))
			if err == nil && again.GetRevision() != made.GetRevision() {
				t.Error("an equal export was written")
			}
		})
	}
	group.Wait()
	m.agree(t, "us.example.org", "us.example.org", routingtest.Epoch.Add(time.Hour), true)
	list, err := m.ListServiceImports(ctx, &ententev1.ListServiceImportsRequest{})
	require.NoError(t, err)
	require.Equal(t, ententev1.ImportState_IMPORT_STATE_ENDED, list.GetImports()[0].GetState())

	_, err = m.UnimportService(ctx, &ententev1.UnimportServiceRequest{Service: "store", From: "us.example.org"})
	require.NoError(t, err)
	_, err = m.UnimportService(ctx, &ententev1.UnimportServiceRequest{Service: "store", From: "us.example.org"})
	routingtest.Refused(t, err, codes.NotFound, "nothing is imported into store from us.example.org")
}
