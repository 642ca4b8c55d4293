package grant

import (
	"cmp"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/etag"
	"github.com/ententehq/entente/raftstore"
)

// grants is the table of all grants.
var grants = raftstore.NewTable[*statev1.Grant]("grants", raftstore.RecordsNow).
	NamesWriter(writtenOn, func(g *statev1.Grant, member string) { g.RestoredOn = member })

// writtenOn returns the member that wrote a grant: on which it was granted, or that restored it.
func writtenOn(g *statev1.Grant) string { return cmp.Or(g.GetRestoredOn(), g.GetGrantedOn()) }

// Prefix returns the prefix of all grants, for those that follow their changes.
func Prefix() raftstore.Prefix { return grants.Prefix("") }

// Origin is who created a grant, on which member and when.
type Origin struct {
	By, On string
	At     time.Time
}

// Create stores a grant, unless it exists, and returns it. The revision of a new grant is 0. One that a snapshot
// brought is granted anew.
func Create(tx *raftstore.Tx, g Grant, from Origin) (*ententev1.Grant, error) {
	old, found, err := grants.Get(tx, g.key())
	if err != nil {
		return nil, err
	}
	if found && old.Value.GetRestoredOn() == "" {
		return message(old.Value, uint64(old.Revision)), nil
	}
	if err := revoked.Delete(tx, g.key()); err != nil {
		return nil, err
	}
	row := g.row(from)
	row.Generation = raftstore.NextGeneration(tx, 0)
	return message(row, 0), put(tx, g.key(), row)
}

// Revoke deletes a grant and records by whom it was revoked. If requested is not empty, it must be the grant's etag.
func Revoke(tx *raftstore.Tx, g Grant, requested, by string, now time.Time) error {
	row, found, err := grants.Get(tx, g.key())
	if err != nil {
		return err
	}
	if !found {
		return g.missing()
	}
	err = etag.Check(requested, "the grant of the role "+RoleName(g.Role)+" to "+g.Caller.String(),
		etag.Of(row.Value.GetGeneration()))
	if err != nil {
		return err
	}
	if err := remove(tx, row); err != nil {
		return err
	}
	return recordRevocation(tx, g.key(), &statev1.RevokedGrant{RevokedBy: by}, now)
}

// missing is the error for a grant that does not exist.
func (g Grant) missing() error {
	return status.Errorf(codes.NotFound, "%s does not have this grant (role %s, domain %s, path %s, DNS "+
		"names %s): 'entente access list' shows which there are", g.Caller, RoleName(g.Role),
		cmp.Or(g.TrustDomain.Name(), "every one"), cmp.Or(g.PathPrefix, "any"), cmp.Or(string(g.DNS), "none"))
}

// Get returns a grant, or an error for operators if it does not exist.
func Get(r raftstore.Reader, g Grant) (*ententev1.Grant, error) {
	row, found, err := grants.Get(r, g.key())
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, g.missing()
	}
	return message(row.Value, uint64(row.Revision)), nil
}

// List returns all grants, ordered by caller.
func List(r raftstore.Reader) (all []*ententev1.Grant, err error) {
	for row, err := range grants.All(r, "") {
		if err != nil {
			return nil, err
		}
		all = append(all, message(row.Value, uint64(row.Revision)))
	}
	return all, nil
}

// Of returns the grants of a SPIFFE ID.
func Of(r raftstore.Reader, id spiffeid.ID) ([]Grant, error) {
	return withPrefix(r, callerKeyPrefix(id))
}

// In returns the grants of all SPIFFE IDs in a trust domain.
func In(r raftstore.Reader, td spiffeid.TrustDomain) ([]Grant, error) {
	return withPrefix(r, td.IDString()+"/")
}

// withPrefix returns the grants whose keys have a prefix.
func withPrefix(r raftstore.Reader, prefix string) ([]Grant, error) {
	var of []Grant
	for row, err := range grants.All(r, prefix) {
		if err != nil {
			return nil, err
		}
		g, err := fromRow(row.Value)
		if err != nil {
			return nil, fmt.Errorf("stored grant %q: %w", row.Key, err)
		}
		of = append(of, g)
	}
	return of, nil
}

// put stores a grant, and makes its caller an owner of its services.
func put(tx *raftstore.Tx, key string, row *statev1.Grant) error {
	for _, service := range row.GetServices() {
		if err := own(tx, service, key, row); err != nil {
			return err
		}
	}
	return grants.Put(tx, key, row)
}

// remove deletes a grant, and the ownership of services that it gave.
func remove(tx *raftstore.Tx, row raftstore.Row[*statev1.Grant]) error {
	for _, service := range row.Value.GetServices() {
		if err := disown(tx, service, row.Key); err != nil {
			return err
		}
	}
	return grants.Delete(tx, row.Key)
}

// RevokeDomain deletes every grant for one trust domain. The transaction that deletes a hosted domain calls it, so a
// later domain of the same name does not start with these grants.
func RevokeDomain(tx *raftstore.Tx, td spiffeid.TrustDomain) error {
	var of []raftstore.Row[*statev1.Grant]
	for row, err := range grants.All(tx, "") {
		if err != nil {
			return fmt.Errorf("read the grants: %w", err)
		}
		if row.Value.GetTrustDomain() == td.Name() {
			of = append(of, row)
		}
	}
	for _, row := range of {
		if err := remove(tx, row); err != nil {
			return fmt.Errorf("delete the grants for %s: %w", td.Name(), err)
		}
	}
	return nil
}
