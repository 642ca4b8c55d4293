package membership

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/directory"
	"github.com/ententehq/entente/raftstore/membership/memberid"
)

// announceEvery is how often a member checks whether its row is up to date, and tries again.
const announceEvery = 2 * time.Second

// announcer keeps this member's row and address as this process was configured.
type announcer struct {
	store     *raftstore.Store
	directory *directory.Directory
	conns     Conns
	self      memberid.Self
	now       func() time.Time
	log       hclog.Logger
	changes   *changes
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
// when they join. A new address goes through the leader, which verifies it, because other members may not reach this
// one there.
func (a *announcer) announce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leaderWait)
	defer cancel()
	present := false
	for _, s := range a.store.Servers().List() {
		if s.MemberID != a.self.ID || s.Identity != a.self.Identity {
			continue
		}
		present = true
		if s.Address != a.self.Address {
			if err := a.announceAddress(ctx); err != nil {
				return fmt.Errorf("announce the new address %s: %w", a.self.Address, err)
			}
		}
	}
	if !present {
		return nil // not in the cluster yet, or no longer
	}
	row, found, err := Members.Get(a.store.View(), a.self.ID)
	if err != nil || found && proto.Equal(row.Value, a.updated(row.Value)) {
		return err
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
			row.Value = &statev1.Member{JoinTime: timestamppb.New(a.now())}
		}
		return Members.Put(tx, a.self.ID, a.updated(row.Value))
	})
	return err
}

// announceAddress sends this member's new address to the leader. While the others expect it at the old one, it receives
// nothing from the leader and does not know which member that is, so it tries all of them.
func (a *announcer) announceAddress(ctx context.Context) error {
	own := &ententev1.MemberIdentity{Id: a.self.ID, Address: a.self.Address, Identity: a.self.Identity[:]}
	_, err := a.changes.addServer(ctx, own)
	if err == nil {
		return nil
	}
	failures := []error{err}
	members, _ := a.directory.Members()
	for _, m := range members {
		if m.ID == a.self.ID {
			continue
		}
		conn, err := a.conns.Conn(m.ID)
		if err == nil {
			_, err = ententev1.NewMemberServiceClient(conn).AddServer(ctx, &ententev1.AddServerRequest{Member: own})
		}
		if err == nil {
			return nil
		}
		failures = append(failures, fmt.Errorf("member %s: %w", m.ID, err))
	}
	return errors.Join(failures...)
}

// updated returns a row with the fields that this process determines.
func (a *announcer) updated(was *statev1.Member) *statev1.Member {
	row := proto.CloneOf(was)
	row.Id, row.Region, row.Zone, row.Address = a.self.ID, a.self.Region, a.self.Zone, a.self.Address
	row.Identity, row.Version, row.CommandVersion = a.self.Identity[:], a.self.Version, raftstore.CommandVersion
	return row
}
