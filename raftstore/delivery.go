package raftstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// delivery brings one command to whoever leads, as often as it takes. Sending it again is safe: it is known by its ID.
type delivery struct {
	store   *Store
	command *statev1.Command
	request *ententev1.ProposeRequest
	// unclear says that the command was sent and the answer did not tell what became of it.
	unclear bool
}

// The pause before a leader is asked again that could not answer, doubled each time.
const (
	firstPause = 5 * time.Millisecond
	lastPause  = 200 * time.Millisecond
)

func (d *delivery) run(ctx context.Context) (outcome, error) {
	pause := firstPause
	var failing time.Time // since when there is no answer
	for {
		response, err := d.ask(ctx)
		if failing.IsZero() {
			failing = time.Now()
		}
		switch {
		case ctx.Err() != nil:
			return outcome{}, ctx.Err()
		case refused(err):
			return outcome{}, fmt.Errorf("the leader refuses the command: %w", err)
		case err != nil:
			if err := d.store.leaderless(failing, err); err != nil {
				return outcome{}, err
			}
		case response.GetResult() == ententev1.ProposeResponse_RESULT_APPLIED:
			return outcome{applied: true, revision: response.GetRevision()}, nil
		case response.GetResult() == ententev1.ProposeResponse_RESULT_CONFLICT:
			return outcome{revision: response.GetRevision()}, nil
		case response.GetResult() == ententev1.ProposeResponse_RESULT_INVALID:
			return outcome{}, fmt.Errorf("%w: %s", ErrUnknownOutcome, response.GetMessage())
		case response.GetResult() == ententev1.ProposeResponse_RESULT_BUSY && !d.unclear:
			return outcome{}, ErrBusy
		default:
			if response.GetResult() == ententev1.ProposeResponse_RESULT_UNKNOWN {
				d.unclear = true
			}
			if err := d.store.leaderless(failing, errNotReady); err != nil {
				return outcome{}, err
			}
		}
		if err := d.store.pause(ctx, pause); err != nil {
			return outcome{}, err
		}
		pause = min(2*pause, lastPause)
	}
}

var errNotReady = errors.New("the member that was taken for the leader does not lead, or not yet")

// refused reports whether the leader said that it will not take the command, now or later.
func refused(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented, codes.ResourceExhausted:
		return true
	}
	return false
}

// ask sends the command to the leader once, and gives up when another member comes to lead.
func (d *delivery) ask(ctx context.Context) (*ententev1.ProposeResponse, error) {
	s := d.store
	leader, ok := s.Leader()
	if !ok {
		return nil, errNoneKnown
	}
	ctx, cancel := s.whileLeads(ctx, leader)
	defer cancel()
	if leader.MemberID == s.config.MemberID {
		response, err := s.propose(ctx, d.command, d.request)
		d.unclear = d.unclear || err != nil
		return response, err
	}
	client, err := s.client(leader.MemberID)
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

// whileLeads derives a context that ends when another member leads, or none, as far as this one knows. The time limit is for a
// leader that does not answer although it is heard of; one that does has answered by longestWait.
func (s *Store) whileLeads(ctx context.Context, leader Server) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, 2*longestWait)
	if !s.tasks.Go(func() {
		for {
			_, changed := s.leadership.current()
			if now, ok := s.Leader(); !ok || now.MemberID != leader.MemberID {
				cancel()
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}) {
		cancel()
	}
	return ctx, cancel
}

var errNoneKnown = errors.New("no leader is known")

// leaderless decides whether to go on looking for a leader, after an attempt that failed with cause.
func (s *Store) leaderless(began time.Time, cause error) error {
	wait := s.config.Timing.LeaderWait
	if time.Since(began) < wait && s.leadership.leaderlessFor() < wait {
		return nil
	}
	return fmt.Errorf("%w (%w)", ErrNoLeader, cause)
}

// pause waits until something about the leadership changes, at most for a while.
func (s *Store) pause(ctx context.Context, atMost time.Duration) error {
	_, changed := s.leadership.current()
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case <-changed:
		return nil
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// client returns the StoreService of a fellow member.
func (s *Store) client(memberID string) (ententev1.StoreServiceClient, error) {
	if s.config.Dial == nil {
		return nil, fmt.Errorf("member %s leads, and this member has no way to reach others", memberID)
	}
	conn, err := s.config.Dial(memberID)
	if err != nil {
		return nil, fmt.Errorf("reach member %s: %w", memberID, err)
	}
	return ententev1.NewStoreServiceClient(conn), nil
}

// propose hands a command to this member's queue and waits for the answer.
func (s *Store) propose(ctx context.Context, c *statev1.Command, request *ententev1.ProposeRequest) (*ententev1.ProposeResponse, error) {
	answers := make(chan *ententev1.ProposeResponse, 1)
	by := keyOf(c.GetId())
	by.counter = request.GetTransaction()
	p := &proposal{
		key: keyOf(c.GetId()), command: c, raw: request.GetCommand(), by: by, rejections: request.GetRejections(), arrived: time.Now(),
		abandoned: func() bool { return ctx.Err() != nil },
		answers:   []func(*ententev1.ProposeResponse){func(r *ententev1.ProposeResponse) { answers <- r }},
	}
	if !s.queue.submit(p) {
		return nil, ErrClosed
	}
	select {
	case r := <-answers:
		return r, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.closed:
		return nil, ErrClosed
	}
}
