package membership

import (
	"context"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/memberid"
)

// announceEvery is how often a member checks whether its row is up to date, and tries again.
const announceEvery = 2 * time.Second

// announcer keeps this member's row as this process was configured.
type announcer struct {
	store *raftstore.Store
	self  memberid.Self
	now   func() time.Time
	log   hclog.Logger
	// rebuilt is the order by which this member's files were deleted last.
	rebuilt string
}

func (a *announcer) run(ctx context.Context) {
	every := time.NewTicker(announceEvery)
	defer every.Stop()
	for {
		if err := a.announce(ctx); err != nil && ctx.Err() == nil {
			a.log.Debug("this member's row could not be updated", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
	}
}

// announce updates this member's row. It creates the row of the first member of a cluster; those of others are created
// when they join.
func (a *announcer) announce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leaderWait)
	defer cancel()
	present := false
	for _, s := range a.store.Servers().List() {
		present = present || s.MemberID == a.self.ID && s.Identity == a.self.Identity
	}
	if !present {
		return nil // not in the cluster yet, or no longer
	}
	row, found, err := Members.Get(a.store.View(), a.self.ID)
	if err != nil {
		return err
	}
	if a.rebuilt, err = raftstore.IntegrityOf(a.store).RebuiltBy(); err != nil {
		return err
	}
	if order := row.Value.GetRepair(); order != nil && order.GetId() != a.rebuilt {
		ordered := order.GetRequestTime().AsTime().Format(time.RFC3339)
		raftstore.IntegrityOf(a.store).Diverged("its repair was ordered at " + ordered)
		return nil
	}
	if found && proto.Equal(row.Value, a.updated(row.Value)) {
		return nil
	}
	_, err = a.store.Update(ctx, func(tx *raftstore.Tx) error {
		row, found, err := Members.Get(tx, a.self.ID)
		if err != nil {
			return err
		}
		if !found {
			others, err := Members.List(tx, "")
			if err != nil || len(others) > 0 {
				return err // it was removed: the row must not return
			}
			row.Value = &statev1.Member{JoinTime: timestamppb.New(a.now()), Address: a.self.Address}
		}
		return Members.Put(tx, a.self.ID, a.updated(row.Value))
	})
	return err
}

// updated returns a row with the fields that this process determines. The address is the leader's to change, which
// verifies it.
func (a *announcer) updated(was *statev1.Member) *statev1.Member {
	row := proto.CloneOf(was)
	row.Id, row.Region, row.Zone = a.self.ID, a.self.Region, a.self.Zone
	row.Identity, row.Version, row.CommandVersion = a.self.Identity[:], a.self.Version, raftstore.CommandVersion
	if row.GetRepair().GetId() == a.rebuilt {
		row.Repair = nil // carried out
	}
	return row
}
