// Package auditapi serves the audit log of a member, and gathers those of all members for a caller.
//
// A member requests the events of the others under the protocol of members. [Service.TailAudit] merges what they send:
// the latest events in the order of their times, and new ones as they come. What a member cannot send is in the answer
// as an event of its own, so that an incomplete answer is visible as such.
package auditapi

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/access/audit"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

const (
	// answerLimit is how long another member has to send its latest events.
	answerLimit = 5 * time.Second
	// maxText is the longest text to be searched for.
	maxText = 1024
	// unreachable is the result of the event that stands for what a member cannot send.
	unreachable = "unreachable"
)

// Config has what a [Service] reads.
type Config struct {
	Log *audit.Log
	// Self is the ID of this member.
	Self string
	// Members returns the IDs of all members, and Conn the connection to another one. If nil, the service has the log
	// of this member alone.
	Members func() []string
	Conn    func(memberID string) (grpc.ClientConnInterface, error)
}

// Service implements AuditService.
type Service struct {
	ententev1.UnimplementedAuditServiceServer
	config Config
}

// New returns a service.
func New(c Config) *Service { return &Service{config: c} }

// TailAudit sends the latest events, and new ones if the request has follow set.
func (s *Service) TailAudit(
	request *ententev1.TailAuditRequest, stream grpc.ServerStreamingServer[ententev1.AuditEvent],
) error {
	if err := check(request); err != nil {
		return err
	}
	if !request.GetAllMembers() {
		return s.own(stream.Context(), request, stream.Send)
	}
	if s.config.Members == nil {
		return status.Error(codes.InvalidArgument, "all_members: a member sends to another one its own log alone")
	}
	return s.all(stream, request)
}

// check refuses what cannot be searched for.
func check(r *ententev1.TailAuditRequest) error {
	if n := r.GetLines(); n > audit.MaxTailLines {
		return status.Errorf(codes.InvalidArgument,
			"lines is %d: at most %d can be shown; the file on the member has every line", n, audit.MaxTailLines)
	}
	for _, text := range []string{r.GetCaller(), r.GetAction(), r.GetObject()} {
		if len(text) > maxText {
			return status.Errorf(codes.InvalidArgument, "a text to search for has %d bytes: at most %d", len(text),
				maxText)
		}
	}
	for _, t := range []*timestamppb.Timestamp{r.GetStartTime(), r.GetEndTime()} {
		if t != nil && !t.IsValid() {
			return status.Error(codes.InvalidArgument, "start_time or end_time is no time")
		}
	}
	return nil
}

// selects reports whether a request selects an event.
func selects(r *ententev1.TailAuditRequest, e audit.Recorded) bool {
	return strings.Contains(e.Caller, r.GetCaller()) && strings.Contains(e.Action, r.GetAction()) &&
		strings.Contains(e.Object, r.GetObject()) &&
		(r.GetStartTime() == nil || !e.Time.Before(r.GetStartTime().AsTime())) &&
		(r.GetEndTime() == nil || e.Time.Before(r.GetEndTime().AsTime()))
}

// own sends what this member has.
func (s *Service) own(
	ctx context.Context, request *ententev1.TailAuditRequest, send func(*ententev1.AuditEvent) error,
) error {
	keep := func(e audit.Recorded) bool { return selects(request, e) }
	tail := s.config.Log.Tail(int(request.GetLines()), request.GetFollow(), keep)
	defer tail.Close()
	for {
		e, err := tail.Next(ctx)
		switch {
		case errors.Is(err, audit.ErrTailEnd):
			return nil
		case errors.Is(err, audit.ErrTailTooSlow):
			return status.Error(codes.ResourceExhausted, err.Error())
		case errors.Is(err, audit.ErrClosed):
			return status.Error(codes.Unavailable, err.Error())
		case err != nil:
			return status.FromContextError(err).Err()
		}
		err = send(&ententev1.AuditEvent{
			Time: timestamppb.New(e.Time), Member: e.Member, Caller: e.Caller, Action: e.Action, Object: e.Object,
			Result: e.Result, Revision: e.Revision, Detail: e.Detail, Call: e.Call,
		})
		if err != nil {
			return err
		}
	}
}

// of sends what a member has. What it cannot send is an event of its own, unless the call has ended.
func (s *Service) of(
	ctx context.Context, member string, request *ententev1.TailAuditRequest, send func(*ententev1.AuditEvent) error,
) error {
	if member == s.config.Self {
		return s.own(ctx, request, send)
	}
	err := s.receive(ctx, member, request, send)
	if err == nil || errors.Is(err, errSend) {
		return err
	}
	return send(&ententev1.AuditEvent{
		Time: timestamppb.Now(), Member: s.config.Self, Caller: "member " + s.config.Self, Action: "tail audit",
		Object: member, Result: unreachable, Detail: status.Convert(err).Message(),
	})
}

// errSend marks that the caller does not receive.
var errSend = errors.New("the caller does not receive")

// receive sends what another member sends.
func (s *Service) receive(
	ctx context.Context, member string, request *ententev1.TailAuditRequest, send func(*ententev1.AuditEvent) error,
) error {
	conn, err := s.config.Conn(member)
	if err != nil {
		return err
	}
	limited, cancel := context.WithCancel(ctx)
	if !request.GetFollow() {
		limited, cancel = context.WithTimeout(ctx, answerLimit)
	}
	defer cancel()
	forwarded := proto.CloneOf(request)
	forwarded.AllMembers = false
	stream, err := ententev1.NewAuditServiceClient(conn).TailAudit(limited, forwarded)
	if err != nil {
		return err
	}
	for {
		event, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := send(event); err != nil {
			return errors.Join(errSend, err)
		}
	}
}

// all sends what all members have.
func (s *Service) all(
	stream grpc.ServerStreamingServer[ententev1.AuditEvent], request *ententev1.TailAuditRequest,
) error {
	var mu sync.Mutex // a stream takes one message at a time
	var latest []*ententev1.AuditEvent
	send := func(e *ententev1.AuditEvent) error {
		mu.Lock()
		defer mu.Unlock()
		if request.GetFollow() {
			return stream.Send(e)
		}
		latest = append(latest, e)
		return nil
	}
	group, ctx := errgroup.WithContext(stream.Context())
	for _, member := range s.config.Members() {
		group.Go(func() error { return s.of(ctx, member, request, send) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, e := range merge(latest, int(request.GetLines())) {
		if err := stream.Send(e); err != nil {
			return err
		}
	}
	return nil
}

// merge returns the latest n events in the order of their times, and what could not be had.
func merge(events []*ententev1.AuditEvent, n int) []*ententev1.AuditEvent {
	slices.SortStableFunc(events, func(a, b *ententev1.AuditEvent) int {
		return a.GetTime().AsTime().Compare(b.GetTime().AsTime())
	})
	had := slices.DeleteFunc(slices.Clone(events), func(e *ententev1.AuditEvent) bool {
		return e.GetResult() == unreachable
	})
	missing := slices.DeleteFunc(events, func(e *ententev1.AuditEvent) bool { return e.GetResult() != unreachable })
	return append(had[len(had)-min(n, len(had)):], missing...)
}
