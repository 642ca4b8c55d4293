package grant

import (
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

// revoked is the table of revoked grants, by the keys of the grants.
var revoked = raftstore.NewTable[*statev1.RevokedGrant]("revoked_grants", raftstore.RecordsNow)

// revokedLife is how long a revocation is kept: longer than the age of any snapshot that is still restored.
const revokedLife = 2 * 366 * 24 * time.Hour

// recordRevocation stores a revocation, and deletes those older than revokedLife.
func recordRevocation(tx *raftstore.Tx, key string, r *statev1.RevokedGrant, now time.Time) error {
	old, err := revoked.List(tx, "")
	if err != nil {
		return fmt.Errorf("read the revoked grants: %w", err)
	}
	for _, row := range old {
		if now.Sub(row.Value.GetRevokeTime().AsTime()) > revokedLife {
			if err := revoked.Delete(tx, row.Key); err != nil {
				return err
			}
		}
	}
	r.RevokeTime = timestamppb.New(now)
	return revoked.Put(tx, key, r)
}

// RemoveMember is part of the transaction that removes a member. If the member is compromised, it revokes each grant
// that was made on it, by its admin socket or by its port, and each that it restored from a snapshot: who holds a
// member is an administrator there, and can make a snapshot with any content.
func RemoveMember(tx *raftstore.Tx, member string, compromised bool, now time.Time) error {
	if !compromised {
		return nil
	}
	rows, err := grants.List(tx, "")
	if err != nil {
		return fmt.Errorf("read the grants: %w", err)
	}
	for _, row := range rows {
		if row.Value.GetGrantedOn() != member && row.Value.GetRestoredOn() != member {
			continue
		}
		if err := remove(tx, row); err != nil {
			return err
		}
		end := &statev1.RevokedGrant{
			RevokedBy: "removal of member " + member + " as compromised", WithMember: member, Grant: row.Value,
		}
		if err := recordRevocation(tx, row.Key, end, now); err != nil {
			return err
		}
	}
	return nil
}

// RevokedWith returns the grants that ended with a compromised member, ordered by caller.
func RevokedWith(r raftstore.Reader, member string) ([]*ententev1.Grant, error) {
	var ended []*ententev1.Grant
	for row, err := range revoked.All(r, "") {
		if err != nil {
			return nil, fmt.Errorf("read the revoked grants: %w", err)
		}
		if row.Value.GetWithMember() == member && row.Value.GetGrant() != nil {
			ended = append(ended, message(row.Value.GetGrant(), uint64(row.Revision)))
		}
	}
	return ended, nil
}

// SurviveRestore deletes from a restored state the grants that were revoked since, so an old snapshot gives no access
// back, and reserves again the names of services that are open in it only because it is older than their first owner.
// Grants that were deleted with their domain return with it: they were not revoked.
func SurviveRestore(before, _ *raftstore.View, tx *raftstore.Tx) error {
	for row, err := range revoked.All(before, "") {
		if err != nil {
			return fmt.Errorf("read the revoked grants: %w", err)
		}
		restored, found, err := grants.Get(tx, row.Key)
		if err != nil {
			return err
		}
		if found {
			if restored.Value.GetCreateTime().AsTime().After(row.Value.GetRevokeTime().AsTime()) {
				continue // it was granted again before the snapshot
			}
			if err := remove(tx, restored); err != nil {
				return err
			}
		}
		if err := revoked.Put(tx, row.Key, row.Value); err != nil {
			return err
		}
	}
	return reserveAgain(before, tx)
}

// reserveAgain reserves the names that were reserved before a restore and that the restored state has as open.
func reserveAgain(before *raftstore.View, tx *raftstore.Tx) error {
	services, err := Reserved(before)
	if err != nil {
		return err
	}
	for _, service := range services {
		o, err := OwnersOf(tx, service)
		if err == nil && o.Open() {
			err = reserve(tx, service)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// CouldIssue describes the grants, other than of the ID itself, that allow an ID to be issued, and those that did so
// until they were revoked after since.
func CouldIssue(r raftstore.Reader, id spiffeid.ID, since time.Time) (able []string, err error) {
	all, err := withPrefix(r, "")
	if err != nil {
		return nil, err
	}
	for _, g := range all {
		if g.Role == Issuer && g.CoversID(id) && g.Caller != id {
			able = append(able, fmt.Sprintf("%s (%s)", g.Caller, Describe([]Grant{g})))
		}
	}
	for row, err := range revoked.All(r, "") {
		if err != nil {
			return nil, fmt.Errorf("read the revoked grants: %w", err)
		}
		g, ok := fromKey(row.Key)
		at := row.Value.GetRevokeTime().AsTime()
		if ok && at.After(since) && g.Role == Issuer && g.CoversID(id) && g.Caller != id {
			able = append(able, fmt.Sprintf("%s (%s, revoked at %s)", g.Caller, Describe([]Grant{g}),
				at.UTC().Format(time.RFC3339)))
		}
	}
	return able, nil
}
