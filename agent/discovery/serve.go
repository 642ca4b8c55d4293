package discovery

import (
	"context"
	"slices"
	"strconv"
	"strings"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/internal/xdsupdate"
)

// Subscription is what a stream subscribes to of one type.
type Subscription struct {
	Names    []string
	Wildcard bool
}

// Source has what one stream is to have. The stream calls its methods from one goroutine.
type Source interface {
	// Changed returns channels of which one is closed at a change after the call. They may be nil. An error ends the
	// stream. The stream calls it before Wanted.
	Changed() ([2]<-chan struct{}, error)
	// Subscribe replaces the subscription of a type.
	Subscribe(t xdsupdate.Type, s Subscription) error
	// Wanted returns the resources of a subscription by name, in a map that the stream may modify. complete is false if
	// something is not known yet: the stream then deletes nothing. An error ends the stream.
	Wanted(t xdsupdate.Type, s Subscription) (resources map[string]*xdsupdate.Resource, complete bool, err error)
	// Close is called when the stream has ended.
	Close()
}

// Handler opens and observes streams.
type Handler struct {
	// Open returns the source of a stream. node is that of its first request, and may be nil.
	Open func(ctx context.Context, node *core.Node) (Source, error)
	// Rejected is called when a client rejects resources, with their names, and Sent after each message. Both may be
	// nil.
	Rejected func(ctx context.Context, t xdsupdate.Type, resources, reason string)
	Sent     func(t xdsupdate.Type)
}

// Bounds of one stream.
const (
	// MaxNames bounds the names of one type, MaxNameLength each of them.
	MaxNames      = 1024
	MaxNameLength = 2048 + len("spiffe://")
	maxTypes      = 32
)

var (
	errTooManyNames = status.Errorf(codes.InvalidArgument, "more than %d names are requested", MaxNames)
	errTooManyTypes = status.Errorf(codes.InvalidArgument, "more than %d types are requested", maxTypes)
	errLongName     = status.Errorf(codes.InvalidArgument, "a name has more than %d bytes", MaxNameLength)
)

// everything is the name by which a client subscribes to all resources of a type.
const everything = "*"

// request is what requests of both forms have in common. Those of the state of the world replace the names.
type request struct {
	node                   *core.Node
	of                     xdsupdate.Type
	nonce                  string
	rejected               *rpcstatus.Status
	names                  []string
	subscribe, unsubscribe []string
	initial                map[string]string
}

// check returns an error for a request that is too large, before any work is done for it.
func (r request) check() error {
	for _, names := range [][]string{r.names, r.subscribe, r.unsubscribe} {
		if len(names) > MaxNames {
			return errTooManyNames
		}
		if slices.ContainsFunc(names, func(n string) bool { return len(n) > MaxNameLength }) {
			return errLongName
		}
	}
	if len(r.initial) > MaxNames {
		return errTooManyNames
	}
	return nil
}

// subscribed is the state of one type on a stream.
type subscribed struct {
	Subscription
	// has are the versions that the client has or was sent, by name.
	has map[string]string
	// nonce is that of the last update, and sent what was new in it. waiting means that the client has not responded.
	nonce    string
	sent     map[string]*xdsupdate.Resource
	waiting  bool
	answered bool
	nacks    xdsupdate.Nacks
}

// stream is an open stream.
type stream struct {
	handler Handler
	delta   bool
	source  Source
	types   map[xdsupdate.Type]*subscribed
	nonce   uint64
	send    func(t xdsupdate.Type, u *xdsupdate.Update, nonce string) error
}

// received is a request, or the error that ended the stream.
type received struct {
	request request
	err     error
}

// run serves a stream until ctx ends, the client ends it, or the source refuses.
func (s *stream) run(ctx context.Context, recv func() (request, error)) error {
	requests := make(chan received)
	go func() { // it ends with the stream, whose context ends when the handler returns
		for {
			r, err := recv()
			select {
			case requests <- received{r, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	defer func() {
		if s.source != nil {
			s.source.Close()
		}
	}()
	var changed [2]<-chan struct{}
	for {
		select {
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case r := <-requests:
			if r.err != nil {
				return r.err
			}
			if err := s.handle(ctx, r.request); err != nil {
				return err
			}
		case <-changed[0]:
		case <-changed[1]:
		}
		var err error
		if changed, err = s.source.Changed(); err != nil {
			return err
		}
		for _, t := range xdsupdate.Order {
			if err := s.answer(t); err != nil {
				return err
			}
		}
	}
}

// handle takes over a request.
func (s *stream) handle(ctx context.Context, r request) (err error) {
	if err := r.check(); err != nil {
		return err
	}
	if s.source == nil {
		if s.source, err = s.handler.Open(ctx, r.node); err != nil {
			s.source = nil
			return err
		}
	}
	sub := s.types[r.of]
	first := sub == nil
	if first {
		if len(s.types) >= maxTypes {
			return errTooManyTypes
		}
		sub = &subscribed{has: map[string]string{}}
		s.types[r.of] = sub
	}
	if !s.delta && r.nonce != "" && sub.nonce != "" && r.nonce != sub.nonce {
		return nil // about an earlier update; the client repeats it with the nonce of the last one
	}
	if r.nonce != "" && r.nonce == sub.nonce && sub.waiting {
		s.settle(ctx, sub, r)
	}
	if s.delta {
		sub.difference(r, first)
	} else {
		sub.replace(r.names, first)
	}
	if len(sub.Names) > MaxNames {
		return errTooManyNames
	}
	return s.source.Subscribe(r.of, sub.Subscription)
}

// settle records whether the client accepts or rejects the last update.
func (s *stream) settle(ctx context.Context, sub *subscribed, r request) {
	changed := sub.sent
	sub.sent, sub.waiting = nil, false
	if r.rejected == nil {
		if r.of.Whole() {
			sub.nacks.Accept(changed)
		}
		return
	}
	names := sub.nacks.Reject(changed, r.rejected.GetMessage())
	if s.handler.Rejected != nil {
		s.handler.Rejected(ctx, r.of, clip(strings.Join(names, " ")), clip(r.rejected.GetMessage()))
	}
}

// clip bounds what a client can add to a log.
func clip(text string) string {
	const limit = 300
	if len(text) > limit {
		return text[:limit] + "…"
	}
	return text
}

// replace takes over the names of a state-of-the-world request. A first request without names is for everything, and
// stays so while later ones have none either.
func (sub *subscribed) replace(names []string, first bool) {
	wildcard := slices.Contains(names, everything) ||
		len(names) == 0 && (first || sub.Wildcard && len(sub.Names) == 0)
	sub.Wildcard = wildcard
	sub.Names = nil
	wanted := map[string]bool{}
	for _, n := range names {
		if n != everything && !wanted[n] {
			wanted[n] = true
			sub.Names = append(sub.Names, n)
		}
	}
	for name := range sub.has { // what is subscribed to again is sent again
		if !wildcard && !wanted[name] {
			delete(sub.has, name)
		}
	}
}

// difference takes over the names of a delta request. A name that is subscribed to again is sent again.
func (sub *subscribed) difference(r request, first bool) {
	if first {
		sub.Wildcard = len(r.subscribe) == 0
		for name, version := range r.initial {
			sub.has[name] = version
		}
	}
	for _, name := range r.subscribe {
		if name == everything {
			sub.Wildcard = true
			continue
		}
		if !slices.Contains(sub.Names, name) {
			sub.Names = append(sub.Names, name)
		}
		if _, initial := r.initial[name]; !initial {
			delete(sub.has, name)
		}
	}
	for _, name := range r.unsubscribe {
		if name == everything {
			sub.Wildcard = false
			continue
		}
		sub.Names = slices.DeleteFunc(sub.Names, func(n string) bool { return n == name })
		delete(sub.has, name)
	}
}

// answer sends what differs of a type, if anything does.
func (s *stream) answer(t xdsupdate.Type) error {
	sub := s.types[t]
	if sub == nil || sub.waiting {
		return nil
	}
	wanted, complete, err := s.source.Wanted(t, sub.Subscription)
	if err != nil {
		return err
	}
	if !complete {
		if t.Whole() && !s.delta {
			return nil // what is left out of such an update is deleted
		}
		for name, version := range sub.has {
			if wanted[name] == nil {
				wanted[name] = &xdsupdate.Resource{Name: name, Version: version}
			}
		}
	}
	u := xdsupdate.Difference(t, s.delta, wanted, sub.has, sub.nacks)
	if u == nil && complete && sub.Wildcard && !sub.answered && len(sub.has) == 0 {
		u = &xdsupdate.Update{Has: map[string]string{}} // Envoy waits for a first response
	}
	if u == nil {
		return nil
	}
	s.nonce++
	nonce := strconv.FormatUint(s.nonce, 10)
	if err := s.send(t, u, nonce); err != nil {
		return err
	}
	sub.nonce, sub.sent, sub.has, sub.waiting, sub.answered = nonce, u.Changed, u.Has, true, true
	if s.handler.Sent != nil {
		s.handler.Sent(t)
	}
	return nil
}
