package routing

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
)

// agreementTable stands for the relationships: a row's key is the foreign domain, its service the peer's home domain, its weight is
// 0 where the agreement is in force, and its register time when it was made.
var agreementTable = raftstore.NewTable[*statev1.Instance]("routing_test_agreements")

// tableAgreements is a cluster that hosts some domains.
type tableAgreements struct{ hosted string }

func (a tableAgreements) Hosted(_ raftstore.Reader, td string) (bool, error) {
	return strings.HasSuffix(td, a.hosted), nil
}

func (tableAgreements) With(r raftstore.Reader, td string) (Agreement, bool, error) {
	row, found, err := agreementTable.Get(r, td)
	if err != nil || !found {
		return Agreement{}, false, err
	}
	return Agreement{Since: row.Value.GetRegisterTime().AsTime(), InForce: row.Value.GetWeight() == 0, Peer: row.Value.GetService()}, true, nil
}

func export(service, to string) *ententev1.ServiceExport {
	return &ententev1.ServiceExport{Service: service, To: to}
}

func TestParseExportAndImport(t *testing.T) {
	for name, c := range map[string]struct {
		export  *ententev1.ServiceExport
		imports *ententev1.ServiceImport
		refusal string
	}{
		"nothing":          {refusal: "the export is missing"},
		"no domain":        {export: export("shop", ""), refusal: "cannot be shared: the trust domain of the other cluster is missing"},
		"a scheme":         {export: export("shop", "spiffe://us.example.org"), refusal: "write the name alone"},
		"no service":       {export: export("", "us.example.org"), refusal: "not a service name: it is empty"},
		"a bad name there": {export: &ententev1.ServiceExport{Service: "shop", To: "us.example.org", Name: "Shop"}, refusal: `"Shop" has 'S' at byte 1`},
		"a bad place":      {export: &ententev1.ServiceExport{Service: "shop", To: "us.example.org", Localities: []string{"eu//a"}}, refusal: "the zone is empty"},
		"many places":      {export: &ententev1.ServiceExport{Service: "shop", To: "us.example.org", Localities: make([]string, 33)}, refusal: "the export names 33 places; 32 are allowed"},
		"half a path":      {export: &ententev1.ServiceExport{Service: "shop", To: "us.example.org", PathPrefix: "shop"}, refusal: `the path "shop" is not one of whole segments`},
		"an open path":     {export: &ententev1.ServiceExport{Service: "shop", To: "us.example.org", PathPrefix: "/shop/"}, refusal: `the path "/shop/" is not one of whole segments`},
		"import, no name":  {imports: &ententev1.ServiceImport{From: "us.example.org"}, refusal: "not a service name: it is empty"},
		"import, no from":  {imports: &ententev1.ServiceImport{Name: "shop"}, refusal: "the trust domain of the other cluster is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			var err error
			if c.imports != nil {
				_, err = ParseImport(c.imports)
			} else {
				_, err = ParseExport(c.export)
			}
			require.ErrorContains(t, err, c.refusal)
		})
	}
}

func TestExportCovers(t *testing.T) {
	parse := func(change func(*ententev1.Instance)) Instance {
		m := registration()
		change(m)
		i, err := ParseInstance(m)
		require.NoError(t, err)
		return i
	}
	plain := parse(func(*ententev1.Instance) {})
	imported := plain
	imported.Origin = "us.example.org"
	for name, c := range map[string]struct {
		change   func(*ententev1.ServiceExport)
		instance Instance
		covered  bool
	}{
		"all":              {func(*ententev1.ServiceExport) {}, plain, true},
		"what is imported": {func(*ententev1.ServiceExport) {}, imported, false},
		"other service":    {func(e *ententev1.ServiceExport) { e.Service = "cart" }, plain, false},
		"its region":       {func(e *ententev1.ServiceExport) { e.Localities = []string{"us", plain.Locality.Region} }, plain, true},
		"its zone": {func(e *ententev1.ServiceExport) {
			e.Localities = []string{plain.Locality.Region + "/" + plain.Locality.Zone}
		}, plain, true},
		"another region": {func(e *ententev1.ServiceExport) { e.Localities = []string{"us"} }, plain, false},
		"its domain":     {func(e *ententev1.ServiceExport) { e.TrustDomain = plain.ID.TrustDomain().Name() }, plain, true},
		"another domain": {func(e *ententev1.ServiceExport) { e.TrustDomain = "pay.example.org" }, plain, false},
		"its path":       {func(e *ententev1.ServiceExport) { e.PathPrefix = plain.ID.Path() }, plain, true},
		"half a segment": {func(e *ententev1.ServiceExport) { e.PathPrefix = plain.ID.Path()[:len(plain.ID.Path())-1] }, plain, false},
	} {
		t.Run(name, func(t *testing.T) {
			m := export("shop", "us.example.org")
			c.change(m)
			e, err := ParseExport(m)
			require.NoError(t, err)
			require.Equal(t, c.covered, e.covers(c.instance))
		})
	}
}

// sharingRoom is a room that hosts eu.example.org and has an agreement with us.example.org.
func sharingRoom(t *testing.T) *room {
	t.Helper()
	r := newRoom(t)
	r.agreements = tableAgreements{"eu.example.org"}
	r.agree(t, "us.example.org", "us.example.org", epoch, true)
	r.setTrust(t, "us.example.org", trust.Fresh)
	return r
}

func (r *room) agree(t *testing.T, td, peer string, since time.Time, inForce bool) {
	t.Helper()
	row := &statev1.Instance{Service: peer, RegisterTime: timestamppb.New(since)}
	if !inForce {
		row.Weight = 1
	}
	_, err := r.store.Update(t.Context(), func(tx *raftstore.Tx) error { return agreementTable.Put(tx, td, row) })
	require.NoError(t, err)
}

func TestExports(t *testing.T) {
	r, ctx := sharingRoom(t), admin(t)
	_, err := r.ExportService(ctx, &ententev1.ExportServiceRequest{Export: export("shop", "ap.example.org")})
	refused(t, err, codes.FailedPrecondition, "this cluster has no relationship with ap.example.org; make one first")
	_, err = r.ExportService(ctx, &ententev1.ExportServiceRequest{Export: export("shop", "eu.example.org")})
	refused(t, err, codes.FailedPrecondition, "this cluster hosts eu.example.org itself")
	_, err = r.ExportService(ctx, &ententev1.ExportServiceRequest{Export: &ententev1.ServiceExport{Service: "shop", To: "us.example.org", TrustDomain: "pay.example.org"}})
	refused(t, err, codes.FailedPrecondition, "does not host pay.example.org")
	_, err = r.ExportService(ctx, &ententev1.ExportServiceRequest{})
	refused(t, err, codes.InvalidArgument, "the export is missing")

	made, err := r.ExportService(ctx, &ententev1.ExportServiceRequest{Export: export("shop", "us.example.org")})
	require.NoError(t, err)
	require.Equal(t, ententev1.ExportState_EXPORT_STATE_OFFERED, made.GetState())
	require.Equal(t, "no instance of a hosted domain is covered by it", made.GetDetail())
	_, err = r.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: registration()})
	require.NoError(t, err)
	again, err := r.ExportService(ctx, &ententev1.ExportServiceRequest{Export: export("shop", "us.example.org")})
	require.NoError(t, err)
	require.Equal(t, made.GetRevision(), again.GetRevision(), "the same once more was written")
	require.EqualValues(t, 1, again.GetInstances())

	shown := func() *ententev1.ServiceExport {
		list, err := r.ListServiceExports(ctx, &ententev1.ListServiceExportsRequest{})
		require.NoError(t, err)
		require.Len(t, list.GetExports(), 1)
		return list.GetExports()[0]
	}
	require.Equal(t, "shop", shown().GetName())
	r.agree(t, "us.example.org", "us.example.org", epoch, false)
	require.Equal(t, ententev1.ExportState_EXPORT_STATE_HELD_BACK, shown().GetState())
	r.agree(t, "us.example.org", "", epoch, true)
	require.Contains(t, shown().GetDetail(), "names no peer")
	r.agree(t, "us.example.org", "us.example.org", epoch.Add(time.Hour), true)
	require.Equal(t, ententev1.ExportState_EXPORT_STATE_ENDED, shown().GetState(), "it counts under the next agreement")

	_, err = r.UnexportService(ctx, &ententev1.UnexportServiceRequest{Name: "shop", To: "us.example.org"})
	require.NoError(t, err)
	_, err = r.UnexportService(ctx, &ententev1.UnexportServiceRequest{Name: "shop", To: "us.example.org"})
	refused(t, err, codes.NotFound, "nothing is exported to us.example.org as shop")
}

func TestImports(t *testing.T) {
	r, ctx := sharingRoom(t), admin(t)
	wanted := func(name, from, as string) *ententev1.ImportServiceRequest {
		return &ententev1.ImportServiceRequest{Import: &ententev1.ServiceImport{Name: name, From: from, Service: as}}
	}
	_, err := r.ImportService(ctx, wanted("shop", "ap.example.org", ""))
	refused(t, err, codes.FailedPrecondition, "this cluster has no relationship with ap.example.org")
	made, err := r.ImportService(ctx, wanted("shop", "us.example.org", "store"))
	require.NoError(t, err)
	require.Equal(t, ententev1.ImportState_IMPORT_STATE_PENDING, made.GetState())
	require.Equal(t, "store", made.GetService())
	_, err = r.ImportService(ctx, wanted("shop", "us.example.org", "bazaar"))
	refused(t, err, codes.AlreadyExists, "shop of us.example.org is imported as store already")

	// The same from two sides at once is one import.
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			again, err := r.ImportService(ctx, wanted("shop", "us.example.org", "store"))
			if err == nil && again.GetRevision() != made.GetRevision() {
				t.Error("the same once more was written")
			}
		})
	}
	group.Wait()
	r.agree(t, "us.example.org", "us.example.org", epoch.Add(time.Hour), true)
	list, err := r.ListServiceImports(ctx, &ententev1.ListServiceImportsRequest{})
	require.NoError(t, err)
	require.Equal(t, ententev1.ImportState_IMPORT_STATE_ENDED, list.GetImports()[0].GetState())

	_, err = r.UnimportService(ctx, &ententev1.UnimportServiceRequest{Service: "store", From: "us.example.org"})
	require.NoError(t, err)
	_, err = r.UnimportService(ctx, &ententev1.UnimportServiceRequest{Service: "store", From: "us.example.org"})
	refused(t, err, codes.NotFound, "nothing is imported into store from us.example.org")
}
