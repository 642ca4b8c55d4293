package membership

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/directory"
	"github.com/ententehq/entente/raftstore/membership/memberid"
	"github.com/ententehq/entente/raftstore/membership/recovery"
)

// changes makes the changes of the Raft configuration, on the leader.
type changes struct {
	store     *raftstore.Store
	directory *directory.Directory
	prober    Prober
	self      string
	onRemove  []func(tx *raftstore.Tx, removed Removal) error
	// onChange cuts the connections of members that are no longer in the Raft configuration.
	onChange func()
	log      hclog.Logger
	leader   *leader
	now      func() time.Time
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
		return nil, apierror.Invalid(apierror.InField("id", err))
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
		if err := c.storeAddress(ctx, joiner); err != nil {
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

// storeAddress stores a member's address, with the start in which the member has stated it.
func (c *changes) storeAddress(ctx context.Context, to directory.Entry) error {
	_, err := c.store.Update(ctx, func(tx *raftstore.Tx) error {
		row, found, err := Members.Get(tx, to.ID)
		if err != nil || !found || string(row.Value.GetIdentity()) != string(to.Identity[:]) ||
			row.Value.GetAddressStart() > to.Start {
			return err
		}
		row.Value.Address, row.Value.AddressStart = to.Address, to.Start
		return Members.Put(tx, to.ID, row.Value)
	})
	return err
}

// moveEvery is how often the leader tries to commit the addresses that members have stated.
const moveEvery = 2 * time.Second

// commitMoves commits the addresses that members have stated, while this member leads.
func (c *changes) commitMoves(ctx context.Context) {
	every := time.NewTicker(moveEvery)
	defer every.Stop()
	for {
		for _, to := range c.directory.Moved() {
			if err := c.commitMove(ctx, to); err != nil && ctx.Err() == nil {
				c.log.Warn("the new address of a member could not be committed; trying again", "member", to.ID,
					"address", to.Address, "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
	}
}

// commitMove commits the address that a member has stated, after it has verified the member's identity key there.
func (c *changes) commitMove(ctx context.Context, to directory.Entry) error {
	ctx, cancel := context.WithTimeout(ctx, leaderTimeout)
	defer cancel()
	if err := c.prober.ProbeIdentity(ctx, to.Address, to.Identity); err != nil {
		return err
	}
	if err := c.storeAddress(ctx, to); err != nil {
		return err
	}
	c.log.Info("the new address of a member is committed", "member", to.ID, "address", to.Address)
	return nil
}

// transfer transfers leadership to another member, and returns the ID of the new leader.
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
			"member %s is the only one with a vote; there is no other to transfer leadership to", c.self)
	}
	if err := c.store.Servers().TransferLeadership(ctx, id); err != nil {
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

// completeRecovery removes the members that the cluster was recovered without, and marks the recovery as completed. Its
// steps can be repeated.
func (c *changes) completeRecovery(ctx context.Context, pending *statev1.Recovery, now time.Time) error {
	for _, m := range pending.GetAbandoned() {
		_, err := c.store.Update(ctx, func(tx *raftstore.Tx) error {
			row, found, err := Members.Get(tx, m.GetId())
			if err != nil || !found || string(row.Value.GetIdentity()) != string(m.GetIdentity()) {
				return err
			}
			return c.deleteMember(tx, Removal{MemberID: m.GetId()})
		})
		if err != nil {
			return err
		}
		c.log.Warn("a member was struck out by the recovery of the cluster", "member", m.GetId())
	}
	_, err := c.store.Update(ctx, func(tx *raftstore.Tx) error { return recovery.Complete(tx, now) })
	return err
}
