package raftstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore/internal/commit"
	"github.com/ententehq/entente/raftstore/internal/machine"
)

// sender sends commands to the leader until their outcome is known.
type sender struct {
	*leadership
	life    *lifetime
	reads   *reads
	queue   *commit.Queue
	peers   peers
	numbers *commit.Numbers
}

// commit sends a command until its outcome is known, and waits for this member to apply it.
func (s *sender) commit(ctx context.Context, c *statev1.Command) (machine.Outcome, error) {
	o, err := s.send(ctx, c, &ententev1.ProposeRequest{Transaction: s.numbers.Next()})
	if err != nil {
		return machine.Outcome{}, err
	}
	if err := s.reads.reach(ctx, o.Revision); err != nil {
		return machine.Outcome{}, fmt.Errorf("decided at revision %d, which this member has not reached: %w: %w",
			o.Revision, ErrUnknownOutcome, err)
	}
	return o, nil
}

// send gives a command its ID and sends it until its outcome is known, or cannot be.
func (s *sender) send(
	ctx context.Context, c *statev1.Command, request *ententev1.ProposeRequest,
) (machine.Outcome, error) {
	release, err := s.numbers.Acquire(ctx)
	if err != nil {
		return machine.Outcome{}, err
	}
	defer release()
	id, settled := s.numbers.Open()
	defer s.numbers.Settle(id.GetCounter())
	c.Id, c.Settled = id, settled
	if err := cmp.Or(commit.Check(c), ownName(c, s.peers.self)); err != nil {
		return machine.Outcome{}, fmt.Errorf("no leader would accept this command: %w", err)
	}
	if request.Command, err = proto.Marshal(c); err != nil {
		return machine.Outcome{}, fmt.Errorf("encode a command: %w", err)
	}
	request.Command = machine.Seal(request.Command)
	if size := len(request.Command); size > machine.MaxCommand {
		return machine.Outcome{}, fmt.Errorf("the command has %d bytes, and the limit is %d: %w",
			size, machine.MaxCommand, ErrTooLarge)
	}
	ctx, cancel := s.life.until(ctx)
	defer cancel()
	d := delivery{sender: s, command: c, request: request}
	o, err := d.run(ctx)
	if err == nil {
		return o, nil
	}
	err = s.life.orClosed(err)
	if d.unclear && !errors.Is(err, ErrUnknownOutcome) {
		err = fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	}
	return machine.Outcome{}, err
}

// delivery sends one command to the leader, in as many attempts as it takes. Sending it again is safe: it is recognized
// by its ID.
type delivery struct {
	*sender
	command *statev1.Command
	request *ententev1.ProposeRequest
	// unclear means that the command was sent and the answer did not contain its outcome.
	unclear bool
}

// The pause before the next attempt, doubled each time.
const (
	firstPause = 5 * time.Millisecond
	lastPause  = 200 * time.Millisecond
)

var errNotReady = errors.New("the member that was taken for the leader does not lead, or not yet")

func (d *delivery) run(ctx context.Context) (machine.Outcome, error) {
	pause := firstPause
	var failing time.Time // since when there is no answer
	for {
		response, err := d.attempt(ctx)
		if failing.IsZero() {
			failing = time.Now()
		}
		switch {
		case ctx.Err() != nil:
			return machine.Outcome{}, ctx.Err()
		case refused(err):
			return machine.Outcome{}, fmt.Errorf("the leader refuses the command: %w", err)
		case err == nil:
			o, final, err := d.outcome(response)
			if final {
				return o, err
			}
			if err := d.retryable(failing, errNotReady); err != nil {
				return machine.Outcome{}, err
			}
		default:
			if err := d.retryable(failing, err); err != nil {
				return machine.Outcome{}, err
			}
		}
		if err := d.pause(ctx, pause); err != nil {
			return machine.Outcome{}, err
		}
		pause = min(2*pause, lastPause)
	}
}

// outcome reads an answer of the leader, and reports whether it is final.
func (d *delivery) outcome(r *ententev1.ProposeResponse) (_ machine.Outcome, final bool, _ error) {
	switch r.GetResult() {
	case ententev1.ProposeResponse_RESULT_APPLIED:
		return machine.Outcome{Applied: true, Revision: r.GetRevision()}, true, nil
	case ententev1.ProposeResponse_RESULT_CONFLICT:
		return machine.Outcome{Revision: r.GetRevision()}, true, nil
	case ententev1.ProposeResponse_RESULT_INVALID:
		return machine.Outcome{}, true, fmt.Errorf("%w: %s", ErrUnknownOutcome, r.GetMessage())
	case ententev1.ProposeResponse_RESULT_BUSY:
		return machine.Outcome{}, !d.unclear, ErrBusy
	case ententev1.ProposeResponse_RESULT_UNKNOWN:
		d.unclear = true
	}
	return machine.Outcome{}, false, nil
}

// refused reports whether the leader will not accept the command, now or later.
func refused(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented,
		codes.ResourceExhausted:
		return true
	}
	return false
}

// attempt sends the command to the leader once. It is given up when another member comes to lead, or after a time
// limit, for a leader that sends heartbeats and does not answer; one that works has answered by commit.LongestWait.
func (d *delivery) attempt(ctx context.Context) (*ententev1.ProposeResponse, error) {
	leader, ok := d.leader()
	if !ok {
		return nil, errNoneKnown
	}
	ctx, cancel := context.WithTimeout(ctx, 2*commit.LongestWait)
	defer cancel()
	if !d.life.Go(func() { d.whileLeads(ctx, leader, cancel) }) {
		cancel()
	}
	if leader.MemberID == d.peers.self {
		response, err := d.queue.Propose(ctx, d.command, d.request.GetCommand(), d.request)
		d.unclear = d.unclear || err != nil
		return response, orStoreClosed(err)
	}
	client, err := d.peers.client(leader.MemberID)
	if err != nil {
		return nil, err
	}
	response, err := client.Propose(ctx, d.request)
	if err != nil {
		d.unclear = d.unclear || !refused(err)
		return nil, fmt.Errorf("member %s: %w", leader.MemberID, err)
	}
	return response, nil
}

// orStoreClosed turns the queue's error into the store's.
func orStoreClosed(err error) error {
	if errors.Is(err, commit.ErrClosed) {
		return ErrClosed
	}
	return err
}

// peers connects to the other members.
type peers struct {
	self string
	dial func(memberID string) (grpc.ClientConnInterface, error)
}

// client returns the StoreService of a member.
func (p peers) client(memberID string) (ententev1.StoreServiceClient, error) {
	if p.dial == nil {
		return nil, fmt.Errorf("member %s leads, and this member is not configured to reach others", memberID)
	}
	conn, err := p.dial(memberID)
	if err != nil {
		return nil, fmt.Errorf("reach member %s: %w", memberID, err)
	}
	return ententev1.NewStoreServiceClient(conn), nil
}
