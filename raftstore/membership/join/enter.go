// Package join admits new members to a cluster, with one-time tokens.
//
// A new member comes with a [Token], which an operator makes. The joiner verifies that the member it reaches has an
// identity key that the token names before it sends the token's secret ([Enter]). The member that serves the join
// decides by the rules of rules.go, which are pure, and binds the joiner's ID and key to the token.
package join

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/memberid"
)

// Entry is what a member needs to join a cluster. Before it calls [Enter], its port must accept connections and its
// store must be open, because the leader connects to it to verify its identity key, and then sends it the log.
type Entry struct {
	Token Token
	// Addresses are members of the cluster; one that answers is enough.
	Addresses []string
	Self      memberid.Self
	Identity  *memberid.Identity
	// ClusterName and HomeTrustDomain are as this member's configuration has them.
	ClusterName, HomeTrustDomain string
	// Directory learns the members of the cluster.
	Directory Learner
	// Dial opens a connection under entente-join/1, and closes it before anything is sent if accept refuses the
	// identity key of the other end.
	Dial func(ctx context.Context, address string, accept func(memberid.Digest) error) (net.Conn, error)
	// Credentials are gRPC's for a connection that Dial has made.
	Credentials credentials.TransportCredentials
	Logger      hclog.Logger
}

const (
	entryTimeout = 30 * time.Second // one attempt at one address: the leader may have to be elected first
	entryBackoff = 250 * time.Millisecond
	entryMaximum = 5 * time.Second
)

// Learner receives the members of the cluster once the joiner is one of them.
type Learner interface {
	Learn(index raftstore.Revision, members []*ententev1.MemberIdentity) (bool, error)
}

// ErrRefused is wrapped by the errors of [Enter] that another attempt does not change.
var ErrRefused = errors.New("the cluster did not admit this member")

// Enter requests admission from the members at the given addresses, in turn and repeatedly, until one grants it, one
// refuses, or ctx ends. It may be called again after it succeeded, also by a later process of the same member.
func Enter(ctx context.Context, e Entry) (*ententev1.JoinResponse, error) {
	if e.Token.ClusterName != e.ClusterName {
		return nil, fmt.Errorf("the join token is for cluster %q, but cluster.name is %q; "+
			"correct the configuration or use a token of this cluster: "+
			"%w", e.Token.ClusterName, e.ClusterName, ErrRefused)
	}
	if len(e.Addresses) == 0 {
		return nil, fmt.Errorf("no address of a member is given; set join.addresses: %w", ErrRefused)
	}
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = entryBackoff, entryMaximum
	for {
		unknown := 0
		var last error
		for _, address := range e.Addresses {
			answer, err := e.enter(ctx, address)
			if err == nil {
				revision := raftstore.Revision(answer.GetRevision())
				if _, err := e.Directory.Learn(revision, answer.GetMembers()); err != nil {
					return nil, fmt.Errorf("join at %s: the answer is malformed: %w", address, err)
				}
				return answer, nil
			}
			last = fmt.Errorf("join at %s: %w", address, err)
			if final(err) {
				return nil, fmt.Errorf("%w: %w", ErrRefused, last)
			}
			if errors.Is(err, errUnknownMember) {
				unknown++
			}
			e.Logger.Warn("could not join at this address yet",
				"address", address, "token", e.Token.String(), "error", err)
		}
		if unknown == len(e.Addresses) {
			return nil, fmt.Errorf("%w: %w", ErrRefused, last)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w (last: %w)", ctx.Err(), last)
		case <-time.After(wait.NextBackOff()):
		}
	}
}

// errUnknownMember means that the token does not name the identity key of the member that answered.
var errUnknownMember = errors.New("not the cluster of the token")

// final reports whether the cluster has decided, in which case another member would decide the same.
func final(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument,
		codes.PermissionDenied,
		codes.FailedPrecondition,
		codes.AlreadyExists,
		codes.Unimplemented:
		return true
	}
	return false
}

// enter requests admission from one member.
func (e Entry) enter(ctx context.Context, address string) (*ententev1.JoinResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, entryTimeout)
	defer cancel()
	var refusal error
	conn, err := e.Dial(ctx, address, func(presented memberid.Digest) error {
		if refusal = e.Token.accepts(presented); refusal != nil {
			refusal = fmt.Errorf("%w: %w", errUnknownMember, refusal)
		}
		return refusal
	})
	if refusal != nil {
		return nil, refusal
	}
	if err != nil {
		return nil, err
	}
	defer conn.Close() // gRPC closes it, unless it never used it
	// gRPC receives this one connection, whose other end was verified, and no other after it.
	once := make(chan net.Conn, 1)
	once <- conn
	client, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(e.Credentials),
		grpc.WithNoProxy(),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			select {
			case c := <-once:
				return c, nil
			default:
				return nil, errors.New("the connection was closed")
			}
		}))
	if err != nil {
		return nil, err
	}
	defer func() { _ = client.Close() }() // it is not used any more
	return ententev1.NewJoinServiceClient(client).Join(ctx, &ententev1.JoinRequest{
		Id: e.Self.ID, Region: e.Self.Region, Zone: e.Self.Zone, Address: e.Self.Address, Version: e.Self.Version,
		IdentityCertificate: e.Identity.Certificate.Certificate[0],
		TokenId:             e.Token.ID,
		TokenSecret:         e.Token.Secret[:],
		CommandVersion:      raftstore.CommandVersion,
		ClusterName:         e.ClusterName,
		HomeTrustDomain:     e.HomeTrustDomain,
	})
}
