// Package join admits new members to a cluster, with one-time tokens.
//
// A new member comes with a [Token], which an administrator makes for its member ID. The joiner verifies that the
// member it reaches has an identity key that the token names before it sends the token's secret ([Enter]). The member
// that serves the join decides by the rules of rules.go, which are pure, and binds the joiner's key to the token.
//
// A redeemed token makes no member. Unless it was made with automatic approval, the joiner waits until an administrator
// approves it: it repeats its request and receives nothing but that it has to wait. Until then its key and ID are in
// the row of the token alone, so that whatever admits by membership (the port, Raft, the authorities, the streams) does
// not know it.
package join

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
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
	Dialer    Dialer
	Logger    hclog.Logger
}

const (
	entryTimeout = 30 * time.Second // one attempt at one address: the leader may have to be elected first
	entryBackoff = 250 * time.Millisecond
	entryMaximum = 5 * time.Second
	// usualEntry is how long attempts can fail at a usual start, at which the others may still be starting.
	usualEntry = time.Minute
	// approvalPoll is how often a joiner checks whether it was approved.
	approvalPoll = 2 * time.Second
)

// Learner receives the members of the cluster once the joiner is one of them.
type Learner interface {
	Learn(index raftstore.Revision, members []*ententev1.MemberIdentity) (bool, error)
}

// ErrRefused is wrapped by the errors of [Enter] that another attempt does not change.
var ErrRefused = errors.New("the cluster did not admit this member")

// ErrAwaitingApproval is wrapped by the error of [Enter] if ctx ends while the joiner waits for approval.
var ErrAwaitingApproval = errors.New("an administrator has not approved this member yet")

// Enter requests admission from the members at the given addresses, in turn and repeatedly, until one grants it, one
// refuses, or ctx ends. That includes the wait for approval. It may be called again after it succeeded, also by a later
// process of the same member.
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
	announced, begin := false, time.Now()
	for {
		unknown := 0
		pause := wait.NextBackOff()
		var last error
		for _, address := range e.Addresses {
			answer, err := e.enter(ctx, address)
			err = namingPort(err)
			if err == nil && answer.GetAwaitingApproval() {
				if !announced {
					e.Logger.Info("this member waits until an administrator approves it on a member of the cluster",
						"command", fmt.Sprintf("entente cluster approve %s --identity %x", e.Self.ID, e.Self.Identity))
				}
				announced, pause, last = true, approvalPoll, ErrAwaitingApproval
				wait.Reset()
				break
			}
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
			level := hclog.Info
			if strings.HasPrefix(err.Error(), noClusterPort) || time.Since(begin) > usualEntry {
				level = hclog.Warn
			}
			e.Logger.Log(level, "could not join at this address yet; trying again",
				"address", address, "token", e.Token.String(), "error", err)
		}
		if unknown == len(e.Addresses) {
			return nil, fmt.Errorf("%w: %w", ErrRefused, last)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w (last: %w)", ctx.Err(), last)
		case <-time.After(pause):
		}
	}
}

// errUnknownMember means that the token does not name the identity key of the member that answered.
var errUnknownMember = errors.New("not the cluster of the token")

// noClusterPort begins the error of an address that only a person can correct.
const noClusterPort = "it is not a cluster port"

// wrongPorts maps what TLS reports about an address that is no cluster port to what it most likely is.
var wrongPorts = []struct{ message, port string }{
	{"no application protocol", "a bundle endpoint or another TLS server"},
	{"first record does not look like a TLS handshake", "the operations port or another server without TLS"},
	{"server selected unadvertised ALPN protocol", "another TLS server"},
}

// namingPort returns an error with which port is meant, if something else than a cluster port has answered.
func namingPort(err error) error {
	if err == nil {
		return nil
	}
	for _, w := range wrongPorts {
		if strings.Contains(err.Error(), w.message) {
			return fmt.Errorf(noClusterPort+", but %s: join.addresses needs the cluster port of a member, "+
				"7440 unless its member.listen has another: %w", w.port, err)
		}
	}
	return err
}

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
	var answer *ententev1.JoinResponse
	err := e.Dialer.Call(ctx, address, func(presented memberid.Digest) error {
		if err := e.Token.accepts(presented); err != nil {
			return fmt.Errorf("%w: %w", errUnknownMember, err)
		}
		return nil
	}, func(member ententev1.JoinServiceClient) (err error) {
		answer, err = member.Join(ctx, &ententev1.JoinRequest{
			Id: e.Self.ID, Region: e.Self.Region, Zone: e.Self.Zone, Address: e.Self.Address, Version: e.Self.Version,
			IdentityCertificate: e.Identity.Certificate.Certificate[0],
			TokenId:             e.Token.ID,
			TokenSecret:         e.Token.Secret[:],
			CommandVersion:      raftstore.CommandVersion,
			ClusterName:         e.ClusterName,
			HomeTrustDomain:     e.HomeTrustDomain,
		})
		return err
	})
	return answer, err
}
