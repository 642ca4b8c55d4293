package grant

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore"
)

// serviceOwners is the index of the grants that name a service, by "<service>/<key of the grant>". Its rows have the
// fields of the grant that decide which IDs it covers. A service that had owners, and has none any more, has one empty
// row instead, by "<service>/": its name is reserved.
var serviceOwners = raftstore.NewTable[*statev1.Grant]("service_owners", raftstore.RecordsNow)

// ownersOf is the prefix of the keys of a service's owners, and the key of its reservation.
func ownersOf(service string) string { return service + "/" }

// OwnersPrefix returns the prefix of what decides who owns a service, for those that follow its changes. Its keys begin
// with the name of the service and a slash. If the service is empty, the prefix is that of all services.
func OwnersPrefix(service string) raftstore.Prefix {
	if service != "" {
		return serviceOwners.Prefix(ownersOf(service))
	}
	return serviceOwners.Prefix("")
}

// OwnersRevision returns the revision of the last change to the owners of a service.
func OwnersRevision(r raftstore.Reader, service string) raftstore.Revision {
	return serviceOwners.PrefixRevision(r, ownersOf(service))
}

// Owners are the grants that name one service. A service that never had any is open to every caller with the role
// discovery.
type Owners struct {
	Service string
	Grants  []Grant
	// Reserved is set if the service had owners and has none left. None of its instances counts, and none can be
	// registered until it has another owner or is released.
	Reserved bool
}

// Open reports whether the service has no owner and its name is not reserved.
func (o Owners) Open() bool { return len(o.Grants) == 0 && !o.Reserved }

// OwnersOf returns the owners of a service.
func OwnersOf(r raftstore.Reader, service string) (Owners, error) {
	o := Owners{Service: service}
	for row, err := range serviceOwners.All(r, ownersOf(service)) {
		if err != nil {
			return o, fmt.Errorf("read the owners of service %s: %w", service, err)
		}
		if row.Key == ownersOf(service) {
			o.Reserved = true
			continue
		}
		g, err := fromRow(row.Value)
		if err != nil {
			return o, fmt.Errorf("stored owner %q: %w", row.Key, err)
		}
		o.Grants = append(o.Grants, g)
	}
	return o, nil
}

// Cover reports whether an instance of the service counts under a SPIFFE ID: whether the grant of an owner covers the
// ID, or the service is open.
func (o Owners) Cover(id spiffeid.ID) bool {
	return o.Open() || slices.ContainsFunc(o.Grants, func(g Grant) bool { return g.CoversID(id) })
}

// own makes a caller an owner of a service, by the grant with a key.
func own(tx *raftstore.Tx, service, key string, row *statev1.Grant) error {
	if err := serviceOwners.Delete(tx, ownersOf(service)); err != nil {
		return err
	}
	return serviceOwners.Put(tx, ownersOf(service)+key, &statev1.Grant{
		Role: row.GetRole(), SpiffeId: row.GetSpiffeId(), TrustDomain: row.GetTrustDomain(),
		PathPrefix: row.GetPathPrefix(),
	})
}

// disown ends the ownership that a grant gave. The name of a service without further owners is reserved.
func disown(tx *raftstore.Tx, service, key string) error {
	if err := serviceOwners.Delete(tx, ownersOf(service)+key); err != nil {
		return err
	}
	for _, err := range serviceOwners.All(tx, ownersOf(service)) {
		return err // it has another owner, if err is nil
	}
	return reserve(tx, service)
}

func reserve(tx *raftstore.Tx, service string) error {
	return serviceOwners.Put(tx, ownersOf(service), &statev1.Grant{})
}

// Reserved lists the services whose names are reserved.
func Reserved(r raftstore.Reader) (services []string, err error) {
	for row, err := range serviceOwners.All(r, "") {
		if err != nil {
			return nil, fmt.Errorf("read the owners of services: %w", err)
		}
		if service, key, _ := strings.Cut(row.Key, "/"); key == "" {
			services = append(services, service)
		}
	}
	return services, nil
}

// Release makes a reserved name of a service open again.
func Release(tx *raftstore.Tx, service string) error {
	o, err := OwnersOf(tx, service)
	switch {
	case err != nil:
		return err
	case len(o.Grants) > 0:
		return status.Errorf(codes.FailedPrecondition, "service %s has owners, %s among them: revoke their grants "+
			"first; 'entente access list' shows them", service, o.Grants[0].Caller)
	case !o.Reserved:
		return status.Errorf(codes.NotFound, "no service of the name %q is reserved: 'entente access list' shows "+
			"which are", clip(service))
	}
	return serviceOwners.Delete(tx, ownersOf(service))
}
