package membership

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/directory"
	"github.com/ententehq/entente/raftstore/membership/memberid"
)

// Removal describes a member that is removed, to the other rooms.
type Removal struct {
	MemberID    string
	Compromised bool
}

// changes makes the changes of the Raft configuration, on the leader.
type changes struct {
	store     *raftstore.Store
	directory *directory.Directory
	prober    Prober
	self      string
	onRemove  []func(tx *raftstore.Tx, removed Removal) error
	log       hclog.Logger
	leader    *leader
	// changing is held while the Raft configuration is changed.
	changing *sync.Mutex
}

// addServer adds a member whose row is stored to the Raft configuration, or adopts its new address, after it has
// verified the member's identity key at the address.
func (c *changes) addServer(ctx context.Context, m *ententev1.MemberIdentity) (*ententev1.AddServerResponse, error) {
	entries, err := directory.Parse([]*ententev1.MemberIdentity{m})
	if err == nil {
		err = memberid.CheckAddress(m.GetAddress())
	}
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	joiner := entries[0]
	if !c.leader.leads() {
		return nil, raftstore.ErrNotLeader
	}
	server, done, err := c.checkJoiner(ctx, joiner)
	if err != nil {
		return nil, err
	}
	if done {
		return c.serversAdded(), nil
	}
	// The lock is not held meanwhile: an address that does not answer must not keep this member from being removed.
	if err := c.prober.ProbeIdentity(ctx, joiner.Address, joiner.Identity); err != nil {
		return nil, status.Errorf(
			codes.FailedPrecondition,
			"the leader %s did not find member %s at its address %s: %v; "+
				"check member.advertise and the network between the two",
			c.self,
			joiner.ID,
			joiner.Address,
			err,
		)
	}
	c.changing.Lock()
	defer c.changing.Unlock()
	if server, done, err = c.checkJoiner(ctx, joiner); err != nil {
		return nil, err
	}
	if done {
		return c.serversAdded(), nil
	}
	if server.stored != joiner.Address {
		if err := c.move(ctx, joiner); err != nil {
			return nil, err
		}
	}
	if server.Voter {
		err = c.store.Servers().AddVoter(ctx, server.Server)
	} else {
		err = c.store.Servers().AddNonvoter(ctx, server.Server)
	}
	if err != nil {
		return nil, err
	}
	c.log.Info("the member is in the Raft configuration", "member", joiner.ID, "address", joiner.Address,
		"identity", memberid.Short(joiner.Identity), "voter", server.Voter)
	return c.serversAdded(), nil
}

// newServer is a server to be added to the Raft configuration, with the address of its row.
type newServer struct {
	raftstore.Server
	stored string
}

// checkJoiner returns the server to add for a member whose row is stored. done means that it is in the Raft
// configuration already.
func (c *changes) checkJoiner(ctx context.Context, joiner directory.Entry) (e newServer, done bool, err error) {
	v, err := c.store.Read(ctx, raftstore.ReadOptions{Linearizable: true})
	if err != nil {
		return e, false, err
	}
	row, found, err := Members.Get(v, joiner.ID)
	if err != nil {
		return e, false, err
	}
	if !found || string(row.Value.GetIdentity()) != string(joiner.Identity[:]) {
		return e, false, status.Errorf(codes.FailedPrecondition,
			"no token was redeemed for member %s with identity key %s; join it with a token",
			joiner.ID, memberid.Short(joiner.Identity))
	}
	e = newServer{
		raftstore.Server{MemberID: joiner.ID, Identity: joiner.Identity, Address: joiner.Address},
		row.Value.GetAddress(),
	}
	for _, known := range c.store.Servers().List() {
		if known.MemberID == joiner.ID && known.Identity == joiner.Identity {
			e.Voter = known.Voter
			done = done || known.Address == joiner.Address
		}
	}
	return e, done, nil
}

func (c *changes) serversAdded() *ententev1.AddServerResponse {
	members, index := c.directory.Identities()
	return &ententev1.AddServerResponse{Revision: uint64(index), Members: members}
}

// move stores a member's new address.
func (c *changes) move(ctx context.Context, to directory.Entry) error {
	_, err := c.store.Update(ctx, func(tx *raftstore.Tx) error {
		row, found, err := Members.Get(tx, to.ID)
		if err != nil || !found {
			return err
		}
		row.Value.Address = to.Address
		return Members.Put(tx, to.ID, row.Value)
	})
	return err
}

// remove removes a member: from Raft first, so that it has no vote and no connection any more, and then from the
// tables. If the leader stops in between, another call completes it.
func (c *changes) remove(ctx context.Context, id string, compromised bool) (raftstore.Revision, error) {
	if err := memberid.CheckID(id); err != nil {
		return 0, status.Error(codes.InvalidArgument, err.Error())
	}
	if !c.leader.leads() {
		return 0, raftstore.ErrNotLeader
	}
	c.changing.Lock()
	defer c.changing.Unlock()
	if err := c.removeServer(ctx, id); err != nil {
		return 0, err
	}
	revision, err := c.store.Update(ctx, func(tx *raftstore.Tx) error {
		for _, fn := range c.onRemove {
			if err := fn(tx, Removal{MemberID: id, Compromised: compromised}); err != nil {
				return fmt.Errorf("remove member %s: %w", id, err)
			}
		}
		return errors.Join(Members.Delete(tx, id), alive.Delete(tx, id))
	})
	if err == nil {
		c.log.Info("the member was removed", "member", id, "compromised", compromised, "revision", revision)
	}
	return revision, err
}

// removeServer removes a member from the Raft configuration, if it is there and that is allowed.
func (c *changes) removeServer(ctx context.Context, id string) error {
	v, err := c.store.Read(ctx, raftstore.ReadOptions{Linearizable: true})
	if err != nil {
		return err
	}
	_, stored, err := Members.Get(v, id)
	if err != nil {
		return err
	}
	servers := c.store.Servers().List()
	inRaft := false
	for _, s := range servers {
		inRaft = inRaft || s.MemberID == id
	}
	switch {
	case !stored && !inRaft:
		return status.Errorf(codes.NotFound, "the cluster has no member %s; see `entente cluster members`", id)
	case !inRaft:
		return nil
	}
	reachable, settled := c.leader.reachable(), c.leader.settled()
	if err := removable(servers, func(other string) bool { return reachable(other) || !settled }, id); err != nil {
		return err
	}
	if id == c.self {
		if err := c.store.Servers().TransferLead(ctx, ""); err != nil {
			return err
		}
		return fmt.Errorf("member %s led and has transferred the lead: %w", id, raftstore.ErrNotLeader)
	}
	if err := c.store.Servers().Remove(ctx, id); err != nil && !errors.Is(err, raftstore.ErrNotMember) {
		return err
	}
	return nil
}

// transfer transfers the lead to another member, and returns the ID of the new leader.
func (c *changes) transfer(ctx context.Context, id string) (string, error) {
	if !c.leader.leads() {
		return "", raftstore.ErrNotLeader
	}
	if id == c.self {
		return id, nil
	}
	voters := 0
	known := id == ""
	for _, s := range c.store.Servers().List() {
		if s.Voter {
			voters++
			known = known || s.MemberID == id
		}
	}
	switch {
	case !known:
		return "", status.Errorf(codes.NotFound,
			"the cluster has no member %.80q with a vote; see `entente cluster members`", id)
	case voters < 2:
		return "", status.Errorf(codes.FailedPrecondition,
			"member %s is the only one with a vote; there is no other to transfer the lead to", c.self)
	}
	if err := c.store.Servers().TransferLead(ctx, id); err != nil {
		return "", err
	}
	if id != "" {
		return id, nil
	}
	poll := time.NewTicker(leaderRetry / 10)
	defer poll.Stop()
	for {
		if leader, ok := c.store.Leader(); ok && leader.MemberID != c.self {
			return leader.MemberID, nil
		}
		select {
		case <-ctx.Done():
			return "", raftstore.ErrNoLeader
		case <-poll.C:
		}
	}
}
