// Package request reads what the requests to the services of package authority have in common. Its errors carry gRPC
// status codes.
package request

import (
	"context"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/raftstore"
)

// ParseDomain parses the name of a trust domain.
func ParseDomain(name string) (spiffeid.TrustDomain, error) {
	if name == "" {
		return spiffeid.TrustDomain{}, status.Error(codes.InvalidArgument,
			"trust_domain is empty; name one, such as example.org")
	}
	td, err := bundle.ParseTrustDomain(name)
	if err != nil {
		return td, apierror.Invalid(apierror.InField("trust_domain", err))
	}
	return td, nil
}

// NotHosted returns the error for a domain that the cluster does not host.
func NotHosted(td string) error {
	return status.Errorf(codes.NotFound, "this cluster is not the authority for %s; see domain list", td)
}

// View returns the state that a read of resources sees: linearizable unless the request allows a stale one.
func View(ctx context.Context, store *raftstore.Store, o *ententev1.ReadOptions) (*raftstore.View, error) {
	view, err := store.Read(ctx, raftstore.ReadOptions{
		Linearizable: o.GetConsistency() != ententev1.Consistency_CONSISTENCY_STALE,
		MinRevision:  raftstore.Revision(o.GetMinRevision()),
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return view, nil
}

// Domain returns the row of a hosted domain.
func Domain(r raftstore.Reader, name string) (*statev1.Domain, error) {
	td, err := ParseDomain(name)
	if err != nil {
		return nil, err
	}
	row, ok, err := table.Domains.Get(r, td.Name())
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	if !ok {
		return nil, NotHosted(td.Name())
	}
	return row.Value, nil
}

// Domains returns the row of the hosted domain of that name, or the rows of all if the name is empty.
func Domains(r raftstore.Reader, name string) ([]*statev1.Domain, error) {
	if name != "" {
		domain, err := Domain(r, name)
		if err != nil {
			return nil, err
		}
		return []*statev1.Domain{domain}, nil
	}
	var all []*statev1.Domain
	for row, err := range table.Domains.All(r, "") {
		if err != nil {
			return nil, raftstore.StatusError(err)
		}
		all = append(all, row.Value)
	}
	return all, nil
}
