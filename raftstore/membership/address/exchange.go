// Package address lets the members of a cluster find each other after their addresses have changed, whichever their
// number.
//
// A member states its address, signed with its identity key and with the number of its start. It sends the statement to
// every address that it knows: those of the Raft configuration, those that members have stated, and those of the
// configuration file. Whoever receives a newer statement keeps it, uses it, and passes it on; the answer has the
// statements of the other end. The leader then commits the address (see changes.go of package membership).
//
// The way is entente-join/1, because the caller does not know which member answers at an address. It sends nothing
// before the other end has proved the identity key of a present member. The other end serves nobody who does not
// present a statement of a present member.
//
// A member that comes back after the cluster was recovered without it, or after it was removed, learns that in the same
// way.
package address

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/directory"
	"github.com/ententehq/entente/raftstore/membership/join"
	"github.com/ententehq/entente/raftstore/membership/memberid"
	"github.com/ententehq/entente/raftstore/membership/removal"
)

const (
	// soon is the interval of the attempts at addresses that have not answered, in the first minute of a member and
	// while no leader is known, and later the one after that.
	soon   = 2 * time.Second
	later  = 30 * time.Second
	minute = time.Minute
	// quiet is how long a member looks for the others before it logs which addresses do not answer.
	quiet = 10 * time.Second
	// callTimeout bounds one attempt.
	callTimeout = 5 * time.Second
	// parallel bounds the attempts under way.
	parallel = 8
)

// Exchange sends and receives the statements of members on their addresses.
type Exchange struct {
	Directory *directory.Directory
	Dialer    join.Dialer
	Identity  *memberid.Identity
	Self      memberid.Self
	// Start is the number of this member's start.
	Start uint64
	// Addresses are tried besides those of the members.
	Addresses []string
	// LeaderKnown reports whether this member knows a leader.
	LeaderKnown func() bool
	// Abandoned returns why the holder of an identity key that belongs to no present member cannot return, if the
	// cluster was recovered without it.
	Abandoned func(memberid.Digest) (reason string, abandoned bool)
	// Stop stops this member, because the cluster was recovered without it.
	Stop func(reason string)
	// Servers returns this member's own Raft configuration. It is empty until the member has joined.
	Servers func() []raftstore.Server
	// Removed returns when the member with an identity key was removed.
	Removed func(memberid.Digest) (reason string, removed bool)
	// StopRemoved stops this member, because it was removed.
	StopRemoved func(reason string)
	Logger      hclog.Logger

	mu    sync.Mutex
	proof removal.Proof
}

// Run sends this member's statement until ctx ends.
func (x *Exchange) Run(ctx context.Context) error {
	own, err := x.Identity.StateAddress(x.Self.ID, x.Self.Address, x.Start)
	if err != nil {
		return err
	}
	begun, last := time.Now(), time.Time{}
	met := map[string]bool{} // the addresses that have answered, since the last news
	every := time.NewTicker(soon)
	defer every.Stop()
	for {
		if now := time.Now(); now.Sub(begun) < minute || now.Sub(last) >= later || !x.LeaderKnown() {
			last = now
			x.round(ctx, own, met)
			if silent := x.silent(met); len(silent) > 0 && now.Sub(begun) > quiet && !x.LeaderKnown() {
				x.Logger.Warn("no leader is known, and no member answers at some addresses; if the members have "+
					"moved, set join.addresses to the present address of one of them and start this member again",
					"addresses", silent)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-x.Directory.News():
			clear(met)
			last = time.Time{}
		case <-every.C:
		}
	}
}

// round sends what this member has to all addresses that have not answered yet.
func (x *Exchange) round(ctx context.Context, own *ententev1.AddressStatement, met map[string]bool) {
	if _, _, present := x.Directory.Locate(x.Self.ID); !present && len(x.Servers()) == 0 {
		return // not in the cluster yet
	}
	x.accept(own)
	request := &ententev1.ExchangeAddressesRequest{
		Statements: append([]*ententev1.AddressStatement{own}, x.Directory.Statements()...),
	}
	var group errgroup.Group
	var mu sync.Mutex
	group.SetLimit(parallel)
	for _, address := range x.silent(met) {
		group.Go(func() error {
			answer, err := x.call(ctx, address, request)
			if err != nil {
				x.Logger.Debug("could not exchange the addresses of members", "address", address, "error", err)
				return nil
			}
			mu.Lock()
			met[address] = true
			mu.Unlock()
			for _, s := range answer.GetStatements() {
				x.accept(s)
			}
			return nil
		})
	}
	_ = group.Wait() // no attempt returns an error
}

// silent returns the addresses at which other members may be, without those that have answered.
func (x *Exchange) silent(met map[string]bool) []string {
	targets := slices.Clone(x.Addresses)
	members, _ := x.Directory.Members()
	for _, m := range members {
		if m.ID != x.Self.ID {
			stated, _, _ := x.Directory.Locate(m.ID)
			targets = append(targets, m.Address, stated)
		}
	}
	slices.Sort(targets)
	return slices.DeleteFunc(slices.Compact(targets), func(a string) bool {
		return a == "" || a == x.Self.Address || met[a]
	})
}

// call exchanges statements with the member at an address.
func (x *Exchange) call(
	ctx context.Context, address string, request *ententev1.ExchangeAddressesRequest,
) (answer *ententev1.ExchangeAddressesResponse, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var id string
	err = x.Dialer.Call(ctx, address, func(presented memberid.Digest) error {
		var known bool
		if id, known = x.Directory.MemberByIdentity(presented); !known {
			return fmt.Errorf("identity key %s there is not that of a member", memberid.Short(presented))
		}
		return nil
	}, func(member ententev1.JoinServiceClient) (err error) {
		answer, err = member.ExchangeAddresses(ctx, request)
		return err
	})
	switch apierror.Reason(status.Convert(err)) {
	case apierror.Abandoned:
		x.Stop(fmt.Sprintf("member %s at %s refuses it: %s", id, address, status.Convert(err).Message()))
	case apierror.Removed:
		x.removed(id, status.Convert(err).Message())
	}
	return answer, err
}

// removed receives the answer of a member that this one was removed.
func (x *Exchange) removed(by, reason string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	first := x.proof.Add(by, reason)
	if why, proved := x.proof.Judge(x.Servers()); proved {
		x.StopRemoved(why)
	} else if first {
		x.Logger.Warn("a member answers that this one was removed; this one stops once a majority of the members "+
			"with a vote does, see `entente cluster members` there", "member", by, "reason", reason)
	}
}

// accept takes over a statement that is valid and newer than what this member has.
func (x *Exchange) accept(s *ententev1.AddressStatement) {
	news, err := x.Directory.Accept(s)
	switch {
	case err != nil:
		x.Logger.Debug("a statement on the address of a member was left out", "error", err)
	case news && s.GetMemberId() != x.Self.ID:
		x.Logger.Info("a member has stated its address", "member", s.GetMemberId(), "address", s.GetAddress(),
			"start", s.GetStart())
	}
}

// Serve answers another member, whose statement is the first one of the request. A statement that is malformed or not
// signed by the key that it names is refused with the whole request; one of a member that is not known here, and one
// that is outdated, is left out, unless it is the caller's own.
func (x *Exchange) Serve(req *ententev1.ExchangeAddressesRequest) (*ententev1.ExchangeAddressesResponse, error) {
	if n := len(req.GetStatements()); n == 0 || n > directory.MaxMembers {
		return nil, status.Errorf(codes.InvalidArgument, "the request has %d statements; 1 to %d are possible", n,
			directory.MaxMembers)
	}
	for i, s := range req.GetStatements() {
		identity, err := memberid.VerifyAddress(s)
		if err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
		news, err := x.Directory.Accept(s)
		switch {
		case err == nil && news:
			x.Logger.Info("a member has stated its address", "member", s.GetMemberId(), "address", s.GetAddress(),
				"start", s.GetStart())
		case err == nil, i > 0:
		case errors.Is(err, directory.ErrUnknownMember):
			if reason, abandoned := x.Abandoned(identity); abandoned {
				return nil, apierror.New(codes.FailedPrecondition, apierror.Abandoned, "%s", reason)
			}
			if reason, removed := x.Removed(identity); removed {
				return nil, apierror.New(codes.FailedPrecondition, apierror.Removed, "%s", reason)
			}
			return nil, status.Error(codes.PermissionDenied, err.Error())
		default:
			return nil, status.Error(codes.FailedPrecondition, err.Error())
		}
	}
	return &ententev1.ExchangeAddressesResponse{Statements: x.Directory.Statements()}, nil
}
